"""What another policy would have decided: evaluated over the findings that ClickHouse keeps.

No model runs, so a week of images takes minutes. Rows come in blocks along the table's own order,
and only counts and a few example ids are kept, so memory stays flat however many there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from operators.findings import (
    Detection,
    Face,
    Fingerprint,
    HashMatch,
    ImageInfo,
    SimilarMatch,
    TermMatch,
    TextLine,
)
from operators.frame import Frame, Origin
from operators.policy import RULE_ERROR, Policy

BLOCK = 2_000
"""Images in a block: some megabytes."""
MOST_EXAMPLES = 5
OTHER_FEEDS = "(other feeds)"
"""Counts together what belongs to feeds beyond those that `Bounds` has room for."""
_ASK_EVERY = 50
"""Images between two looks at whether it is enough."""
_QUAD = ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0))

_COLUMNS = """
    image_id, feed, toUnixTimestamp64Milli(event_time) AS event_ms,
    content_id, pdq, pdq_quality, width, height, toString(format) AS format, bytes,
    objects.label AS labels, objects.score AS object_scores,
    objects.x1 AS x1, objects.y1 AS y1, objects.x2 AS x2, objects.y2 AS y2,
    texts.text AS lines, texts.score AS line_scores, texts.normal AS normals,
    mapKeys(scores) AS score_names, mapValues(scores) AS score_values,
    mapKeys(models) AS model_names, mapValues(models) AS model_values,
    metadata, hashes, similar, terms, faces,
    toString(machine_verdict) AS action, rules.rule AS fired, rules.shadow AS shadow
"""
_FROM = """
FROM images_raw FINAL
WHERE event_time >= fromUnixTimestamp64Milli({begin:Int64}, 'UTC')
"""
# By the id's hash, so that every feed and hour keeps its share, and the same images each time.
_SAMPLE = "AND cityHash64(image_id) % {one_in:UInt64} = 0"
_AFTER = """
AND (
    feed > {after_feed:String}
    OR feed = {after_feed:String}
        AND event_time >= fromUnixTimestamp64Milli({after_ms:Int64}, 'UTC')
)
AND (feed, event_time, image_id)
    > ({after_feed:String}, fromUnixTimestamp64Milli({after_ms:Int64}, 'UTC'), {after_id:String})
"""
# The first condition follows from the second, but only the first is looked up in the index: without
# it each block reads the whole time range anew.
_ORDER = "ORDER BY feed, event_time, image_id LIMIT {limit:UInt32}"

_NOTES = (
    ({"text", "texts", "words"}, "text is read as it is stored, with personal data redacted"),
    ({"hashes", "similar", "terms"}, "matches of lists are those of the time when the image came"),
    ({"calibrated"}, "'calibrated' is computed anew, with the calibrations in the settings"),
)
_BOX_NOTE = "boxes are stored in single precision: areas may differ in the seventh digit"
_ERROR_NOTE = "rules that could not be evaluated are listed as 'rule-error'"
_SAMPLE_NOTE = "of {stored} images that are stored, about one in {one_in} was looked at"
_CUT_NOTE = (
    "it took too long and was ended: images are looked at feed by feed, so the last feeds, by the "
    "alphabet, are missing; take a later time, fewer feeds or fewer images"
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a comparison may take.

    Attributes:
        images: that are looked at; of more that are stored, an even sample.
        feeds: that are told apart.
        enough: asked now and then; once it is true, the comparison ends where it is.
    """

    images: int
    feeds: int
    enough: Callable[[], bool] = lambda: False


class Reader(Protocol):
    """What reads ClickHouse; `sinks.clickhouse.reader.ClickHouseReader` does."""

    def query(self, sql: str, params: dict[str, Any] | None = None) -> Any: ...


@dataclass(slots=True)
class Change:
    """How many verdicts changed in one way, and some of them."""

    images: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class RuleCount:
    """On how many images a rule fired with the one policy and with the other, and some images that
    it fires on only with the other."""

    before: int = 0
    after: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Comparison:
    """What came of a comparison.

    Attributes:
        before, after: what was compared: versions, or `the stored verdicts`.
        images: how many were evaluated.
        stored: how many there were when it began.
        one_in: 1; of a sample, one in so many images was looked at.
        complete: whether all of them were, or all of the sample.
        changes: by feed, action before and action after.
        rules: by rule and feed.
        notes: what a reader has to know about the findings that were read.
    """

    before: str
    after: str
    images: int = 0
    stored: int = 0
    one_in: int = 1
    complete: bool = True
    changes: dict[tuple[str, str, str], Change] = field(default_factory=dict)
    rules: dict[tuple[str, str], RuleCount] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def changed(self) -> int:
        return sum(change.images for change in self.changes.values())

    def ordered_changes(self) -> list[tuple[tuple[str, str, str], Change]]:
        """The changes, the most frequent first."""
        return sorted(self.changes.items(), key=lambda item: (-item[1].images, item[0]))

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "before": self.before,
            "after": self.after,
            "images": self.images,
            "stored": self.stored,
            "one_in": self.one_in,
            "complete": self.complete,
            "changed": self.changed,
            "changes": [
                {
                    "feed": feed,
                    "from": before,
                    "to": after,
                    "images": change.images,
                    "examples": change.examples,
                }
                for (feed, before, after), change in self.ordered_changes()
            ],
            "rules": [
                {
                    "rule": rule,
                    "feed": feed,
                    "before": count.before,
                    "after": count.after,
                    "examples": count.examples,
                }
                for (rule, feed), count in sorted(self.rules.items())
            ],
            "notes": self.notes,
        }


def compare(
    reader: Reader,
    new: Policy,
    other: Policy | None,
    begin_ms: int,
    feeds: Sequence[str] = (),
    progress: Callable[[int, int], object] = lambda done, total: None,
    block: int = BLOCK,
    bounds: Bounds | None = None,
) -> Comparison:
    """Evaluate `new` over what is stored.

    Args:
        other: compared with `new`; `None` compares with the stored verdicts, as they were before
            people decided otherwise.
        begin_ms: images with an event time from then on, milliseconds since the epoch.
        feeds: only these; all if empty.
        progress: told how many images are done, and how many there are.
        bounds: none if not given.

    Raises:
        sinks.clickhouse.reader.QueryError
    """
    compared = Comparison("the stored verdicts" if other is None else other.version, new.version)
    compared.notes = _notes(new, other)
    chosen = _Chosen(begin_ms, tuple(feeds))
    compared.stored = chosen.count(reader)
    if bounds is not None:
        compared.one_in = max(1, math.ceil(compared.stored / bounds.images))
    feeds_seen: set[str] = set()
    for row in chosen.rows(reader, compared.one_in, block):
        if bounds is not None and compared.images % _ASK_EVERY == 0 and bounds.enough():
            compared.complete = False
            break
        frame = _frame(row)
        verdict = new.evaluate(frame)
        after = {_called(hit.rule, hit.shadow) for hit in verdict.rules}
        if other is None:
            action = row["action"]
            before = {
                _called(rule, shadow)
                for rule, shadow in zip(row["fired"], row["shadow"], strict=True)
            }
        else:
            old = other.evaluate(frame)
            action, before = old.action, {_called(hit.rule, hit.shadow) for hit in old.rules}
        feed = frame.feed
        if bounds is not None and feed not in feeds_seen:
            if len(feeds_seen) < bounds.feeds:
                feeds_seen.add(feed)
            else:
                feed = OTHER_FEEDS
        _count(compared, feed, frame.image_id, (action, verdict.action), before, after)
        compared.images += 1
        if compared.images % 500 == 0:
            progress(compared.images, compared.stored)
    progress(compared.images, compared.images)
    if any(rule == RULE_ERROR for rule, _ in compared.rules):
        compared.notes.append(_ERROR_NOTE)
    if compared.one_in > 1:
        compared.notes.append(_SAMPLE_NOTE.format(stored=compared.stored, one_in=compared.one_in))
    if not compared.complete:
        compared.notes.append(_CUT_NOTE)
    return compared


def _called(rule: str, shadow: bool) -> str:
    """A rule that goes from shadow to action, or back, counts as another rule."""
    return f"{rule} (shadow)" if shadow else rule


def _count(
    compared: Comparison,
    feed: str,
    image_id: str,
    actions: tuple[str, str],
    before: set[str],
    after: set[str],
) -> None:
    if actions[0] != actions[1]:
        change = compared.changes.setdefault((feed, *actions), Change())
        change.images += 1
        if len(change.examples) < MOST_EXAMPLES:
            change.examples.append(image_id)
    for rule in before | after:
        count = compared.rules.setdefault((rule, feed), RuleCount())
        count.before += rule in before
        count.after += rule in after
        if rule not in before and len(count.examples) < MOST_EXAMPLES:
            count.examples.append(image_id)


def _notes(*policies: Policy | None) -> list[str]:
    rules = [rule for policy in policies if policy is not None for rule in policy.rules]
    read = {name for rule in rules for name in rule.condition.variables}
    fields = {name for rule in rules for name in rule.condition.fields}
    notes = [note for names, note in _NOTES if names & read]
    return [*notes, *([_BOX_NOTE] if fields & {"box", "area"} else [])]


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The images with an event time from `begin_ms` on; those of `feeds`, or of all."""

    begin_ms: int
    feeds: tuple[str, ...]

    @property
    def _from(self) -> str:
        return f"{_FROM} AND feed IN {{feeds:Array(String)}}" if self.feeds else _FROM

    @property
    def _parameters(self) -> dict[str, Any]:
        return {"begin": self.begin_ms} | ({"feeds": list(self.feeds)} if self.feeds else {})

    def count(self, reader: Reader) -> int:
        """How many there are now."""
        counted = reader.query(f"SELECT count() AS images {self._from}", self._parameters)
        return int(counted.to_pylist()[0]["images"])

    def rows(self, reader: Reader, one_in: int, block: int) -> Iterator[dict[str, Any]]:
        """Their rows, in the table's order; of a sample of one in so many."""
        chosen, parameters = self._from, self._parameters
        if one_in > 1:
            chosen, parameters = f"{chosen} {_SAMPLE}", parameters | {"one_in": one_in}
        after: dict[str, Any] | None = None
        while True:
            sql = f"SELECT {_COLUMNS} {chosen} {_AFTER if after else ''} {_ORDER}"
            answer = reader.query(sql, parameters | (after or {}) | {"limit": block})
            # Row by row: a block as Python objects takes ten times what it takes as a table.
            for batch in answer.to_batches(max_chunksize=200):
                yield from batch.to_pylist()
            if answer.num_rows < block:
                return
            last = answer.slice(answer.num_rows - 1).to_pylist()[0]
            after = {
                "after_feed": last["feed"],
                "after_ms": last["event_ms"],
                "after_id": last["image_id"],
            }


def _frame(row: dict[str, Any]) -> Frame:
    frame = Frame(row["image_id"], row["feed"], row["event_ms"], Origin("stored", 0, 0, 0))
    frame.metadata = msgspec.json.decode(row["metadata"] or "{}", type=dict[str, Any])
    findings = frame.findings
    if row["width"]:
        findings.image = ImageInfo(row["width"], row["height"], row["format"], row["bytes"])
    if row["content_id"]:
        findings.fingerprint = Fingerprint(row["content_id"], row["pdq"], row["pdq_quality"])
    corners = zip(row["x1"], row["y1"], row["x2"], row["y2"], strict=True)
    findings.objects = [
        Detection(label, score, box)
        for label, score, box in zip(row["labels"], row["object_scores"], corners, strict=True)
    ]
    findings.texts = [
        TextLine(text, score, _QUAD, normal)
        for text, score, normal in zip(
            row["lines"], row["line_scores"], row["normals"], strict=True
        )
    ]
    findings.scores = dict(zip(row["score_names"], row["score_values"], strict=True))
    findings.models = dict(zip(row["model_names"], row["model_values"], strict=True))
    findings.hashes = msgspec.json.decode(row["hashes"], type=list[HashMatch])
    findings.similar = msgspec.json.decode(row["similar"], type=list[SimilarMatch])
    findings.terms = msgspec.json.decode(row["terms"], type=list[TermMatch])
    findings.faces = msgspec.json.decode(row["faces"], type=list[Face])
    return frame
