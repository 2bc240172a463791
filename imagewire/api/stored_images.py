"""Rows of ClickHouse as images: what the API shows of them, and what it needs to show them.

Every row comes from `image_sql.IMAGE`, so that all routes say the same of an image, and that the
verdict is the one in force: a person's if there is one, else the policy's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec

from imagewire.api.image_models import ImageSummary, Verdict
from operators.findings import (
    Action,
    Detection,
    Face,
    Findings,
    Fingerprint,
    HashMatch,
    ImageInfo,
    Redaction,
    RuleHit,
    SimilarMatch,
    TermMatch,
    TextLine,
)
from operators.findings import Verdict as PolicyVerdict
from sinks.event_time import rfc3339
from sinks.kafka.records import FindingsRecord

T = TypeVar("T")
_ACTIONS: dict[str, Action] = {"allow": "allow", "review": "review", "block": "block"}


@dataclass(frozen=True, slots=True)
class ImageKey:
    """What an image's row is known by. `event_time_ms`: milliseconds since the epoch."""

    feed: str
    event_time_ms: int
    image_id: str


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image, and where its bytes were.

    Attributes:
        uri: as the producer gave it; empty if the bytes came on Kafka.
        topic, partition, offset: of the record that it came in.
    """

    key: ImageKey
    content_id: str
    uri: str
    topic: str
    partition: int
    offset: int
    kafka_time_ms: int
    verdict: Verdict | None
    decided_by: Literal["policy", "person"]
    rules: tuple[str, ...]
    labels: tuple[str, ...]
    text: str
    width: int
    height: int
    latency_ms: float | None

    def summary(self) -> ImageSummary:
        """What lists show of it."""
        return ImageSummary(**self.fields())

    def fields(self) -> dict[str, Any]:
        """The fields of an `ImageSummary`."""
        return {
            "image_id": self.key.image_id,
            "content_id": self.content_id or None,
            "feed": self.key.feed,
            "event_time": rfc3339(self.key.event_time_ms),
            "uri": public_uri(self.uri),
            "verdict": self.verdict,
            "decided_by": self.decided_by,
            "rules": list(self.rules),
            "labels": list(self.labels),
            "text": self.text,
            "width": self.width,
            "height": self.height,
            "latency_ms": self.latency_ms,
        }


def public_uri(uri: str) -> str | None:
    """`uri` unless it holds the picture itself: that may be seen with what is private hidden
    only, which a `data:` address is not."""
    return None if not uri or uri[:5].lower() == "data:" else uri


def image_of(row: Mapping[str, Any]) -> StoredImage:
    """The image in a row of `image_sql.IMAGE`."""
    latency = row.get("latency_ms")
    return StoredImage(
        key=ImageKey(row["feed"], int(row["event_time_ms"]), row["image_id"]),
        content_id=row["content_id"],
        uri=row["uri"],
        topic=row["topic"],
        partition=int(row["kafka_partition"]),
        offset=int(row["kafka_offset"]),
        kafka_time_ms=int(row["kafka_time_ms"]),
        verdict=_ACTIONS.get(row["verdict"]),
        decided_by="person" if row["decided_by"] == "person" else "policy",
        rules=tuple(row["rules"]),
        labels=tuple(row["labels"]),
        text=row["text"],
        width=int(row["width"]),
        height=int(row["height"]),
        latency_ms=None if latency is None else round(float(latency), 3),
    )


def findings_of(row: Mapping[str, Any]) -> Findings:
    """What was found in the image whose row this is (`image_sql.FINDINGS`)."""
    objects = zip(
        row["object_labels"],
        row["object_scores"],
        row["x1"],
        row["y1"],
        row["x2"],
        row["y2"],
        strict=True,
    )
    # Rows from before a column was added have fewer values in it.
    normals = row["text_normals"] or [""] * len(row["texts"])
    return Findings(
        image=ImageInfo(row["width"], row["height"], row["format"], row["bytes"])
        if row["width"]
        else None,
        fingerprint=Fingerprint(row["content_id"], row["pdq"], row["pdq_quality"])
        if row["content_id"]
        else None,
        objects=[
            Detection(label, _score(score), (_pixel(x1), _pixel(y1), _pixel(x2), _pixel(y2)))
            for label, score, x1, y1, x2, y2 in objects
        ],
        texts=[
            TextLine(text, _score(score), _quad(quad), normal)
            for text, score, quad, normal in zip(
                row["texts"], row["text_scores"], row["text_quads"], normals, strict=True
            )
        ],
        scores={name: _score(score) for name, score in row["scores"].items()},
        extra=_json(row["extra"], dict[str, Any], {}),
        models=dict(row["models"]),
        verdict=_policy_verdict(row),
        hashes=_json(row["hashes"], list[HashMatch], []),
        similar=_json(row["similar"], list[SimilarMatch], []),
        terms=_json(row["terms"], list[TermMatch], []),
        redactions=_json(row["redactions"], list[Redaction], []),
        faces=_json(row["faces"], list[Face], []),
    )


def findings_record(row: Mapping[str, Any], findings: Findings) -> dict[str, Any]:
    """The image's record on the topic images.findings, as JSON values."""
    record = FindingsRecord(
        image_id=row["image_id"],
        content_id=row["content_id"] or None,
        feed=row["feed"],
        event_time=rfc3339(int(row["event_time_ms"])),
        uri=public_uri(row["uri"]),
        metadata=_json(row["metadata"], dict[str, Any], {}),
        image=findings.image,
        objects=findings.objects,
        texts=findings.texts,
        scores=findings.scores,
        fingerprint=findings.fingerprint,
        extra=findings.extra,
        models=findings.models,
        verdict=findings.verdict,
        hashes=findings.hashes,
        similar=findings.similar,
        terms=findings.terms,
        redactions=findings.redactions,
        faces=findings.faces,
    )
    built: dict[str, Any] = msgspec.to_builtins(record)
    return built


def _policy_verdict(row: Mapping[str, Any]) -> PolicyVerdict | None:
    written = _ACTIONS.get(row["written_verdict"])
    if written is None:
        return None
    count = len(row["rule_names"])
    hits = [
        RuleHit(
            name, _ACTIONS.get(kind, "allow"), explanation, priority, severity, category, shadow
        )
        for name, kind, explanation, priority, severity, category, shadow in zip(
            row["rule_names"],
            row["rule_actions"],
            row["rule_explanations"],
            _filled(row["rule_priorities"], count, 0),
            _filled(row["rule_severities"], count, ""),
            _filled(row["rule_categories"], count, ""),
            _filled(row["rule_shadows"], count, False),
            strict=True,
        )
    ]
    person = row["written_by"] == "person"
    machine = _ACTIONS.get(row["machine_verdict"]) if person else None
    return PolicyVerdict(
        written,
        row["policy"],
        hits,
        decided_by="person" if person else "policy",
        machine_action=machine,
        audit=list(row["audited_rules"]),
    )


def _filled(values: list[T], count: int, default: T) -> list[T]:
    """Rows from before a column was added have no values in it."""
    return values if len(values) == count else [default] * count


def _json(text: str, kind: Any, missing: Any) -> Any:
    """What a column of JSON holds. It was written by Imagewire, an earlier version perhaps; what
    cannot be read any more must not hide the rest of the image."""
    try:
        return msgspec.json.decode(text or "null", type=kind | None) or missing
    except (msgspec.MsgspecError, RecursionError):
        return missing


def _score(value: float | None) -> float:
    # 32 bits in the table: more digits than these are noise. What is no number comes as None.
    return round(min(max(float(value or 0.0), 0.0), 1.0), 6)


def _pixel(value: float | None) -> float:
    return round(float(value or 0.0), 2)


def _quad(flat: list[float | None]) -> Any:
    points = [_pixel(value) for value in flat]
    return tuple(zip(points[0::2], points[1::2], strict=True))
