"""Calibrated probabilities: what a network's score is worth, learnt from labels.

A score of 0.9 seldom means that nine in ten such pictures are what the network says. `imagewire
calibrate` measures what it does mean and writes that to a JSON file next to the model; this module
reads such files and applies them, with nothing heavier than a bisection, because it runs for every
image.

A calibration holds for the one model that it was made with. Where the findings name another model,
its labels have no calibrated value at all, since a wrong probability is worse than none.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from operators.operator import OperatorError

FORMAT = 1
SUFFIX = ".calibration.json"
MAX_FILE_BYTES = 4 * 1024 * 1024
"""An isotonic curve has at most some thousands of points of about 40 bytes."""

Probability = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class CalibrationError(OperatorError):
    """A calibration file that must not be used: the message says which, why, and what to do."""


class Threshold(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The calibrated probability from which on the wanted precision (or recall) was reached, with
    the confidence interval of what was measured there."""

    threshold: Probability
    low: Probability
    high: Probability
    target_precision: Probability | None = None
    target_recall: Probability | None = None


class LabelCalibration(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the raw scores of one label become probabilities.

    Attributes:
        method: `temperature`: sigmoid((logit(score) + bias) / temperature). `isotonic`: straight
            lines between `points`, flat before the first and after the last.
        temperature: above 0.
        bias: added to the logit; 0 in plain temperature scaling.
        points: (score, probability), scores strictly rising, probabilities never falling.
        thresholds: for the rules that read `calibrated`.
    """

    method: Literal["temperature", "isotonic"]
    temperature: float = 1.0
    bias: float = 0.0
    points: list[tuple[Probability, Probability]] = []
    thresholds: list[Threshold] = []

    def __post_init__(self) -> None:
        if self.method == "temperature":
            if not (math.isfinite(self.temperature) and self.temperature > 0):
                raise ValueError("'temperature' must be a number above 0")
            if not math.isfinite(self.bias):
                raise ValueError("'bias' must be a number")
            return
        if not self.points:
            raise ValueError("'points' is empty; isotonic regression has at least one")
        for (x0, y0), (x1, y1) in zip(self.points, self.points[1:], strict=False):
            if x1 <= x0 or y1 < y0:
                raise ValueError(f"'points' do not rise: ({x0}, {y0}) before ({x1}, {y1})")

    def probability(self, score: float) -> float:
        """The calibrated probability of `score`, both 0 to 1."""
        score = min(max(score, 0.0), 1.0)
        if self.method == "temperature":
            if score in (0.0, 1.0):
                return score
            logit = (math.log(score) - math.log1p(-score) + self.bias) / self.temperature
            if logit >= 0:
                return 1.0 / (1.0 + math.exp(-logit))
            return math.exp(max(logit, -700.0)) / (1.0 + math.exp(max(logit, -700.0)))
        points = self.points
        after = bisect_right(points, (score, 2.0))
        if after == 0:
            return points[0][1]
        if after == len(points):
            return points[-1][1]
        (x0, y0), (x1, y1) = points[after - 1], points[after]
        return y0 + (y1 - y0) * (score - x0) / (x1 - x0)


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """The calibration of one model, as it stands in its file.

    Attributes:
        format: of the file; this module reads format 1.
        model: the model's name, or its `name@version` to hold for that version alone.
        weights_sha256: of the weights that the labels were scored with.
        labels: by the label that the model gives.
    """

    format: Literal[1]
    model: str
    weights_sha256: str
    labels: dict[str, LabelCalibration]

    def suits(self, models: Iterable[str]) -> bool:
        """Whether one of `models`, each `name@version`, is the model that this was made for."""
        return any(self.model in (model, model.partition("@")[0]) for model in models)


def read_calibration(file: Path) -> Calibration:
    """The calibration in `file`.

    Raises:
        CalibrationError: it cannot be read, is too large, or is not a calibration of format 1.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CalibrationError(
            f"{file}: the calibration cannot be read ({error.strerror}); name a file that "
            "'imagewire calibrate' wrote"
        ) from error
    if len(content) > MAX_FILE_BYTES:
        raise CalibrationError(
            f"{file}: larger than {MAX_FILE_BYTES} bytes, which no calibration is; name a file "
            "that 'imagewire calibrate' wrote"
        )
    try:
        return msgspec.json.decode(content, type=Calibration)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CalibrationError(
            f"{file}: not a calibration of format {FORMAT}: {error}; "
            "make it anew with 'imagewire calibrate'"
        ) from error


def calibration_files(named: Sequence[Path], folder: Path | None) -> tuple[Path, ...]:
    """`named` and, in the order of their names, the files of `folder` that end in
    `.calibration.json`; none if there is no such folder (yet).

    Raises:
        CalibrationError: the folder cannot be read.
    """
    if folder is None:
        return tuple(named)
    try:
        names = sorted(path.name for path in folder.iterdir() if path.name.endswith(SUFFIX))
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise CalibrationError(
            f"{folder}: the folder of calibrations cannot be read ({error.strerror}); correct "
            "policy.calibrations_folder, or the folder's permissions"
        ) from error
    return (*named, *(folder / name for name in names))


def write_calibration(calibration: Calibration, file: Path) -> None:
    """Write `file` in one piece: a worker never reads half of it."""
    unfinished = file.with_name(f".{file.name}.unfinished")
    unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(calibration), indent=2) + b"\n")
    unfinished.replace(file)


def calibrated_scores(
    calibrations: Iterable[Calibration],
    scores: Mapping[str, float],
    models: Iterable[str],
) -> dict[str, float]:
    """Label to calibrated probability, for the labels in `scores` that have a calibration.

    Args:
        scores: label to raw score, 0 to 1; for a detector's label the highest of its boxes.
        models: `name@version` of the models that found them.
    """
    names = list(models)
    found: dict[str, float] = {}
    for calibration in calibrations:
        if not calibration.suits(names):
            continue
        for label, own in calibration.labels.items():
            score = scores.get(label)
            if score is not None and not math.isnan(score):
                found[label] = own.probability(score)
    return found
