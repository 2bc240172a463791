"""Labels to calibrate with: what is true of an image, and what the model had said of it.

They come from a file that somebody wrote, or from what reviewers decided; the scores come with the
file, or from ClickHouse, where every image's findings name the model that gave them. Files are
read as what strangers write: bounded, and each wrong line is named.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

import pyarrow as pa

from models.catalog import ModelCard
from models.errors import nearest

MAX_FILE_BYTES = 256 * 1024 * 1024
MAX_LABELS = 2_000_000
_MAX_LINE = 1024 * 1024
_IDS_AT_ONCE = 1_000
_MAX_TEXT = 4_096
_TRUE = frozenset({"1", "true", "yes", "y"})
_FALSE = frozenset({"0", "false", "no", "n"})


_DECISIONS = """
SELECT image_id, labels FROM decisions
WHERE (decision = 'allow' OR notEmpty(labels)) AND ({drawn:UInt8} = 0 OR notEmpty(audited_rules))
ORDER BY decided_at DESC LIMIT {most:UInt32}
"""
_LOOKED_AT = """
SELECT image_id FROM images
WHERE image_id IN {ids:Array(String)} AND has(mapValues(models), {model:String})
GROUP BY image_id
"""
_HIGHEST_SCORE = """
SELECT image_id, name AS label, max(score) AS highest FROM scores
WHERE image_id IN {ids:Array(String)} GROUP BY image_id, name
"""
_HIGHEST_BOX = """
SELECT image_id, label, max(score) AS highest FROM detections
WHERE image_id IN {ids:Array(String)} GROUP BY image_id, label
"""


class LabelsError(Exception):
    """The labels cannot be used; the message names the file, the line and what to do."""


class Reader(Protocol):
    """Answers questions to ClickHouse."""

    def query(self, sql: str, params: Mapping[str, Any] | None = None) -> pa.Table: ...


@dataclass(frozen=True, slots=True)
class Label:
    """What is true of an image. `score`: the model's, where it came with the label."""

    image_id: str
    label: str
    truth: bool
    score: float | None = None


@dataclass(slots=True)
class Scored:
    """Labels with scores, by label.

    Attributes:
        scores, truth: of one label, in the same order; a score of 0 says that the model gave none.
        skipped: why labels were left out, and how many.
    """

    scores: dict[str, list[float]] = field(default_factory=dict)
    truth: dict[str, list[bool]] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)

    def add(self, label: str, score: float, truth: bool) -> None:
        self.scores.setdefault(label, []).append(score)
        self.truth.setdefault(label, []).append(truth)

    def skip(self, why: str, count: int = 1) -> None:
        self.skipped[why] = self.skipped.get(why, 0) + count


def read_labels(file: Path) -> list[Label]:
    """The labels in a CSV file with a heading line, or in a file with one JSON object a line.

    Columns or keys: `image_id`, `label`, `truth` and, if the file has the scores, `score`.

    Raises:
        LabelsError
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return _unique(file, _rows(file, _bounded(file, lines)))
    except OSError as error:
        raise LabelsError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LabelsError(f"{file} is not UTF-8 ({error.reason}); save it as UTF-8") from error


def _bounded(file: Path, lines: TextIO) -> Iterator[str]:
    """The lines of a file, which may be a pipe or a device and never end."""
    size = 0
    for number in itertools.count(1):
        if not (line := lines.readline(_MAX_LINE)):
            return
        size += len(line)
        if len(line) == _MAX_LINE:
            raise LabelsError(f"{file}, line {number} has more than {_MAX_LINE} characters")
        if size > MAX_FILE_BYTES:
            raise LabelsError(f"{file} has more than {MAX_FILE_BYTES} characters; split it")
        yield line


def _rows(file: Path, lines: Iterable[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if file.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise LabelsError(f"{file}, line {number} is no JSON: {error}") from error
            if not isinstance(row, dict):
                raise LabelsError(f"{file}, line {number} is no JSON object with keys")
            yield number, row
        return
    try:
        rows = csv.DictReader(lines, strict=True)
        found = rows.fieldnames or []
        missing = [name for name in ("image_id", "label", "truth") if name not in found]
        if missing:
            raise LabelsError(
                f"{file} has no column '{missing[0]}'{nearest(missing[0], map(str, found))}; its "
                "first line must name the columns image_id, label, truth and, if it has them, score"
            )
        for row in rows:
            yield rows.line_num, row
    except csv.Error as error:
        raise LabelsError(f"{file}, line {rows.line_num} is no CSV: {error}") from error


def _unique(file: Path, rows: Iterable[tuple[int, Mapping[str, Any]]]) -> list[Label]:
    found: dict[tuple[str, str], Label] = {}
    for number, row in rows:
        where = f"{file}, line {number}"
        label = Label(
            _text(where, row, "image_id"),
            _text(where, row, "label"),
            _truth(where, row.get("truth")),
            _score(where, row.get("score")),
        )
        other = found.setdefault((label.image_id, label.label), label)
        if other.truth != label.truth:
            raise LabelsError(
                f"{where}: image '{label.image_id}' is and is not '{label.label}'; leave one of "
                "the two lines"
            )
        if len(found) > MAX_LABELS:
            raise LabelsError(f"{file} has more than {MAX_LABELS} labels; a sample will do")
    return list(found.values())


def _text(where: str, row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value or len(value) > _MAX_TEXT:
        raise LabelsError(f"{where}: '{name}' must be text of 1 to {_MAX_TEXT} characters")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise LabelsError(f"{where}: '{name}' has half of a character, which JSON can write")
    return value


def _truth(where: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise LabelsError(f"{where}: 'truth' is {str(value)[:40]!r}; write true or false")


def _score(where: str, value: Any) -> float | None:
    if value is None or value == "":
        return None
    try:
        score = float(value)
    except (TypeError, ValueError, OverflowError):
        score = -1.0
    if not 0.0 <= score <= 1.0:
        raise LabelsError(f"{where}: 'score' is {str(value)[:40]!r}; it must be 0 to 1")
    return score


def labels_of_reviews(
    reader: Reader, names: Sequence[str], audits_only: bool = False
) -> list[Label]:
    """What reviewers decided, as labels: for each image and each of `names`, whether it stands
    among the labels that the decision names.

    An image that was allowed without any label has none of them. One that was blocked without
    naming a label says nothing about any, and is left out.

    Args:
        audits_only: only images that were drawn at random. What people look at otherwise is what
            is doubtful, and a calibration learnt from that holds for what is doubtful.
    """
    most = MAX_LABELS // max(len(names), 1)
    params = {"drawn": int(audits_only), "most": most}
    table = reader.query(_DECISIONS, params)
    return [
        Label(row["image_id"], name, name in row["labels"])
        for row in table.to_pylist()
        for name in names
    ]


def with_scores(labels: Sequence[Label], card: ModelCard, reader: Reader | None) -> Scored:
    """Each label with its score: that beside it, else the one that ClickHouse has of this model.

    Args:
        reader: `None` if there is no need to ask, as every label has its score.

    Raises:
        LabelsError: a label is none of the model's.
    """
    known = set(card.labels.values())
    for name in dict.fromkeys(label.label for label in labels):
        if known and name not in known:
            raise LabelsError(
                f"'{name}' is no label of {card.full_name}{nearest(name, known)}; correct the "
                "labels, or name another model with --model"
            )
    scored = Scored()
    missing = [label for label in labels if label.score is None]
    stored = _stored_scores(missing, card, reader) if missing and reader is not None else {}
    for label in labels:
        if label.score is not None:
            scored.add(label.label, label.score, label.truth)
        elif (own := stored.get(label.image_id)) is None:
            scored.skip(f"of images that {card.full_name} has not looked at")
        else:
            scored.add(label.label, own.get(label.label, 0.0), label.truth)
    return scored


def _stored_scores(
    labels: Sequence[Label], card: ModelCard, reader: Reader
) -> dict[str, dict[str, float]]:
    """Image to label to score, for the images that this version of the model has looked at; of a
    detector the highest score among the label's boxes."""
    ids = list(dict.fromkeys(label.image_id for label in labels))
    found: dict[str, dict[str, float]] = {}
    for begin in range(0, len(ids), _IDS_AT_ONCE):
        params: dict[str, Any] = {"ids": ids[begin : begin + _IDS_AT_ONCE], "model": card.full_name}
        for row in reader.query(_LOOKED_AT, params).to_pylist():
            found[row["image_id"]] = {}
        highest = _HIGHEST_SCORE if card.task == "classification" else _HIGHEST_BOX
        for row in reader.query(highest, params).to_pylist():
            if row["image_id"] not in found:
                continue
            found[row["image_id"]][row["label"]] = min(max(float(row["highest"]), 0.0), 1.0)
    return found
