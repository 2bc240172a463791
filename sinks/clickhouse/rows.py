"""Frames as columns of the ClickHouse tables.

Column names, types and the values for them stand side by side, so that an insert needs no look at
the table and a column cannot be forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec

from operators.findings import Findings, Verdict
from operators.frame import Frame
from sinks.clickhouse.projections import PROJECTION, projected
from sinks.replay import failed_attempts

# DateTime64 holds these years. A producer's clock may say anything, and even the dead letter of
# such an image needs an event time that can be stored.
_EARLIEST_MS = -2_208_988_800_000  # 1900-01-01
_LATEST_MS = 10_413_791_999_000  # 2299-12-31T23:59:59
_TIME = "DateTime64(3, 'UTC')"
_LABEL = "LowCardinality(String)"
_ACTION = "Enum8('none' = 0, 'allow' = 1, 'review' = 2, 'block' = 3)"


@dataclass(frozen=True, slots=True)
class Row:
    """A frame, the event time it is stored under, and when it is written; both in milliseconds
    since the epoch."""

    frame: Frame
    event_time_ms: int
    ingested_at_ms: int

    @property
    def findings(self) -> Findings:
        return self.frame.findings

    @property
    def version(self) -> int:
        """Which of several rows of one image stays: the one whose record reached Kafka last, and
        among deliveries of one record the one written last."""
        return max(0, self.frame.origin.timestamp_ms)


@dataclass(frozen=True, slots=True)
class Column:
    """A column's ClickHouse type and how to get its value from a row."""

    type_name: str
    value: Callable[[Row], Any]


def _time(milliseconds: int) -> int:
    """Ticks of `_TIME`, which the driver takes as they are and quicker than a `datetime`."""
    return min(max(milliseconds, _EARLIEST_MS), _LATEST_MS)


def _text(value: str) -> str:
    """`value` with what is no Unicode (half a surrogate pair, from file names) written out."""
    return value.encode("utf-8", "backslashreplace").decode()


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode() if value else "{}"


def _json_list(value: list[Any]) -> str:
    return msgspec.json.encode(value).decode() if value else "[]"


def _attempt(row: Row) -> int:
    return min(failed_attempts(row.frame.origin) + 1, 0xFFFFFFFF)


def _box(corner: int) -> Callable[[Row], list[float]]:
    return lambda row: [found.box[corner] for found in row.findings.objects]


_IDENTITY: Mapping[str, Column] = {
    "image_id": Column("String", lambda row: row.frame.image_id),
    "event_time": Column(_TIME, lambda row: _time(row.event_time_ms)),
    "feed": Column(_LABEL, lambda row: row.frame.feed),
}
_ORIGIN: Mapping[str, Column] = {
    "uri": Column("String", lambda row: _text(row.frame.uri or "")),
    "lane": Column(_LABEL, lambda row: str(row.frame.lane)),
    "metadata": Column("String", lambda row: _json(row.frame.metadata)),
    "topic": Column(_LABEL, lambda row: row.frame.origin.topic),
    "kafka_partition": Column("Int32", lambda row: row.frame.origin.partition),
    "kafka_offset": Column("Int64", lambda row: row.frame.origin.offset),
    "kafka_time": Column(_TIME, lambda row: _time(row.frame.origin.timestamp_ms)),
    "ingested_at": Column(_TIME, lambda row: _time(row.ingested_at_ms)),
    "version": Column("UInt64", lambda row: row.version),
}


def _image(name: str, missing: Any) -> Callable[[Row], Any]:
    return lambda row: getattr(row.findings.image, name) if row.findings.image else missing


def _fingerprint(name: str, missing: Any) -> Callable[[Row], Any]:
    return lambda row: (
        getattr(row.findings.fingerprint, name) if row.findings.fingerprint else missing
    )


def _machine_verdict(verdict: Verdict | None) -> str:
    if verdict is None:
        return "none"
    return verdict.action if verdict.machine_action is None else verdict.machine_action


def _rules(name: str) -> Callable[[Row], list[Any]]:
    return lambda row: (
        [getattr(hit, name) for hit in row.findings.verdict.rules] if row.findings.verdict else []
    )


IMAGE_COLUMNS: Mapping[str, Column] = {
    **_IDENTITY,
    **_ORIGIN,
    "content_id": Column("String", _fingerprint("content_id", "")),
    "pdq": Column("String", _fingerprint("pdq", "")),
    "pdq_quality": Column("UInt8", _fingerprint("pdq_quality", 0)),
    "width": Column("UInt32", _image("width", 0)),
    "height": Column("UInt32", _image("height", 0)),
    "format": Column(_LABEL, _image("format", "")),
    "bytes": Column("UInt64", _image("bytes", 0)),
    "objects.label": Column(
        f"Array({_LABEL})", lambda row: [found.label for found in row.findings.objects]
    ),
    "objects.score": Column(
        "Array(Float32)", lambda row: [found.score for found in row.findings.objects]
    ),
    "objects.x1": Column("Array(Float32)", _box(0)),
    "objects.y1": Column("Array(Float32)", _box(1)),
    "objects.x2": Column("Array(Float32)", _box(2)),
    "objects.y2": Column("Array(Float32)", _box(3)),
    "texts.text": Column("Array(String)", lambda row: [line.text for line in row.findings.texts]),
    "texts.score": Column(
        "Array(Float32)", lambda row: [line.score for line in row.findings.texts]
    ),
    "texts.quad": Column(
        "Array(Array(Float32))",
        lambda row: [list(chain.from_iterable(line.quad)) for line in row.findings.texts],
    ),
    "texts.normal": Column(
        "Array(String)", lambda row: [line.normal for line in row.findings.texts]
    ),
    "scores": Column(f"Map({_LABEL}, Float32)", lambda row: row.findings.scores),
    "models": Column(f"Map({_LABEL}, String)", lambda row: row.findings.models),
    "verdict": Column(
        _ACTION, lambda row: row.findings.verdict.action if row.findings.verdict else "none"
    ),
    "policy": Column(
        _LABEL, lambda row: row.findings.verdict.policy if row.findings.verdict else ""
    ),
    "rules.rule": Column(f"Array({_LABEL})", _rules("rule")),
    "rules.action": Column(f"Array({_ACTION})", _rules("action")),
    "rules.explanation": Column("Array(String)", _rules("explanation")),
    "rules.priority": Column("Array(Int32)", _rules("priority")),
    "rules.severity": Column(f"Array({_LABEL})", _rules("severity")),
    "rules.category": Column(f"Array({_LABEL})", _rules("category")),
    "rules.shadow": Column("Array(Bool)", _rules("shadow")),
    "decided_by": Column(
        _LABEL, lambda row: row.findings.verdict.decided_by if row.findings.verdict else ""
    ),
    "machine_verdict": Column(_ACTION, lambda row: _machine_verdict(row.findings.verdict)),
    "audited_rules": Column(
        f"Array({_LABEL})",
        lambda row: row.findings.verdict.audit if row.findings.verdict else [],
    ),
    "hashes": Column("String", lambda row: _json_list(row.findings.hashes)),
    "similar": Column("String", lambda row: _json_list(row.findings.similar)),
    "terms": Column("String", lambda row: _json_list(row.findings.terms)),
    "redactions": Column("String", lambda row: _json_list(row.findings.redactions)),
    "faces": Column("String", lambda row: _json_list(row.findings.faces)),
    "projections": Column(
        "Array(Float32)",
        lambda row: projected(row.findings.embedding.vector) if row.findings.embedding else [],
    ),
    "projection": Column(_LABEL, lambda row: PROJECTION if row.findings.embedding else ""),
    "extra": Column("String", lambda row: _json(row.findings.extra)),
    "latency_ms": Column(
        "Float64",
        # never negative: the broker's clock may be ahead of this machine's
        lambda row: float(max(0, row.ingested_at_ms - row.frame.origin.timestamp_ms)),
    ),
}  # fmt: skip
"""The columns of `images_raw`."""


def _failure(name: str) -> Callable[[Row], str]:
    return lambda row: _text(getattr(row.frame.failure, name, ""))


FAILURE_COLUMNS: Mapping[str, Column] = {
    **_IDENTITY,
    **_ORIGIN,
    "stage": Column(_LABEL, _failure("stage")),
    "reason": Column(_LABEL, _failure("reason")),
    "detail": Column("String", _failure("detail")),
    "attempt": Column("UInt32", _attempt),
    "kafka_key": Column(
        "String", lambda row: (row.frame.origin.key or b"").decode(errors="replace")
    ),
}
"""The columns of `failures_raw`."""


def as_columns(rows: Sequence[Row], columns: Mapping[str, Column]) -> list[list[Any]]:
    """`rows` column by column, in the order of `columns`."""
    return [[column.value(row) for row in rows] for column in columns.values()]
