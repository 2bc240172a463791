"""The records that Imagewire writes to Kafka, as JSON.

They are msgspec structs, so that what is encoded and the JSON Schemas that consumers rely on come
from one definition. Fields are only ever added; a consumer should ignore those it does not know.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from operators.findings import (
    Action,
    Detection,
    Embedding,
    Face,
    Fingerprint,
    HashMatch,
    ImageInfo,
    Redaction,
    RuleHit,
    SimilarMatch,
    TermMatch,
    TextLine,
    Verdict,
)
from operators.frame import Frame
from sinks.event_time import rfc3339
from sinks.replay import failed_attempts

ImageId = Annotated[
    str,
    Meta(description="The producer's id, else the UUIDv5 of source topic, partition and offset."),
]
ContentId = Annotated[
    str | None, Meta(description="SHA-256 of the image's bytes, 64 hexadecimal digits.")
]
Feed = Annotated[str, Meta(description="The named source that the image belongs to.")]
EventTime = Annotated[
    str,
    Meta(
        description="When the image was captured, else when it arrived on Kafka: RFC 3339, UTC, "
        "milliseconds.",
        pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$",
    ),
]
Uri = Annotated[
    str | None,
    Meta(
        description="Where the image is; null when its bytes came on Kafka, or in the address "
        "itself (data:)."
    ),
]

Hashes = Annotated[list[HashMatch], Meta(description="Entries of banlists that it matches.")]
Similar = Annotated[list[SimilarMatch], Meta(description="Exemplars that it is near to.")]
Redactions = Annotated[
    list[Redaction],
    Meta(description="Personal data that was taken out of texts, and where its stand-ins are."),
]
Terms = Annotated[list[TermMatch], Meta(description="Terms of term lists that were read in it.")]
Faces = Annotated[list[Face], Meta(description="Faces in the picture.")]


DecidedBy = Literal["policy", "person"]


class VerdictRecord(Struct, frozen=True, kw_only=True):
    """The decision over one image, small, published before anything else is."""

    image_id: ImageId
    content_id: ContentId
    feed: Feed
    event_time: EventTime
    uri: Uri
    action: Annotated[
        Action,
        Meta(
            description="The strictest action of those rules with the highest priority that fired "
            "and are no shadow rules; allow if none did."
        ),
    ]
    rules: Annotated[
        list[RuleHit], Meta(description="Every rule that fired, shadow rules included.")
    ]
    policy: Annotated[str, Meta(description="Version of the policy that decided.")]
    decided_by: Annotated[
        DecidedBy,
        Meta(description="person: a reviewer's decision, which outranks any verdict of policy."),
    ] = "policy"
    machine_action: Annotated[
        Action | UnsetType, Meta(description="What the policy says; only where a person decided.")
    ] = UNSET
    decision_id: Annotated[
        str | UnsetType,
        Meta(description="The decision that made or, where decided_by is policy, withdrew it."),
    ] = UNSET
    decided_at: Annotated[
        str | UnsetType,
        Meta(description="When: RFC 3339. Of several verdicts of people the latest stands."),
    ] = UNSET


class ReviewRecord(Struct, frozen=True, kw_only=True):
    """A verdict that asks for a person, with what that person needs in order to decide."""

    image_id: ImageId
    content_id: ContentId
    feed: Feed
    event_time: EventTime
    uri: Uri
    action: Annotated[
        Action, Meta(description="review; for an audit, the verdict that is to be checked.")
    ]
    rules: Annotated[list[RuleHit], Meta(description="Every rule that fired.")]
    policy: Annotated[str, Meta(description="Version of the policy that decided.")]
    metadata: Annotated[dict[str, Any], Meta(description="Whatever the producer sent along.")]
    image: Annotated[ImageInfo | None, Meta(description="Size and format of the upright picture.")]
    objects: Annotated[list[Detection], Meta(description="Objects in the picture.")]
    texts: Annotated[list[TextLine], Meta(description="Lines of text in the picture.")]
    scores: Annotated[dict[str, float], Meta(description="Whole-image scores by name, 0 to 1.")]
    hashes: Hashes = []
    similar: Similar = []
    terms: Terms = []
    redactions: Redactions = []
    faces: Faces = []
    why: Annotated[
        Literal["policy", "audit"],
        Meta(description="policy: the verdict asks for a person; audit: drawn to check a rule."),
    ] = "policy"
    audit: Annotated[
        list[str], Meta(description="The rules that it is drawn for; (no rule) if none fired.")
    ] = []


class FindingsRecord(Struct, frozen=True, kw_only=True):
    """Everything that was found in one image."""

    image_id: ImageId
    content_id: ContentId
    feed: Feed
    event_time: EventTime
    uri: Uri
    metadata: Annotated[dict[str, Any], Meta(description="Whatever the producer sent along.")]
    image: Annotated[ImageInfo | None, Meta(description="Size and format of the upright picture.")]
    objects: Annotated[list[Detection], Meta(description="Objects in the picture.")]
    texts: Annotated[list[TextLine], Meta(description="Lines of text in the picture.")]
    scores: Annotated[dict[str, float], Meta(description="Whole-image scores by name, 0 to 1.")]
    fingerprint: Annotated[
        Fingerprint | None, Meta(description="Content hash and perceptual hash.")
    ]
    extra: Annotated[
        dict[str, Any], Meta(description="What third-party operators add, under their names.")
    ]
    models: Annotated[
        dict[str, str], Meta(description="Operator to name@version of the model that it used.")
    ]
    verdict: Annotated[Verdict | None, Meta(description="Null when no policy is in force.")]
    embedding: Annotated[
        Embedding | UnsetType, Meta(description="Absent unless kafka.include_embedding is set.")
    ] = UNSET
    hashes: Hashes = []
    similar: Similar = []
    terms: Terms = []
    redactions: Redactions = []
    faces: Faces = []


class OutputHeader(StrEnum):
    """Headers of verdict, findings and review records.

    The source record's coordinates let a consumer discard a repeat: delivery is at least once.
    """

    IMAGE_ID = "image-id"
    FEED = "feed"
    SOURCE_TOPIC = "source-topic"
    SOURCE_PARTITION = "source-partition"
    SOURCE_OFFSET = "source-offset"


# Asking an enumeration for its values takes longer than all else about headers.
_IMAGE_ID, _FEED, _SOURCE_TOPIC, _SOURCE_PARTITION, _SOURCE_OFFSET = (
    header.value for header in OutputHeader
)


class DeadLetterHeader(StrEnum):
    """Headers that a dead letter carries beside those of its producer. All values are UTF-8 text.

    `timestamp` is the first record's Kafka timestamp in milliseconds since the epoch; `attempt`
    counts the times that this record has become a dead letter, from 1. `value-omitted` stands only
    on a letter whose value the broker refused as too large, and holds its size in bytes: the value
    is then to be read from the source topic, partition and offset.
    """

    STAGE = "imagewire-stage"
    REASON = "imagewire-reason"
    DETAIL = "imagewire-detail"
    IMAGE_ID = "imagewire-image-id"
    FEED = "imagewire-feed"
    SOURCE_TOPIC = "imagewire-source-topic"
    SOURCE_PARTITION = "imagewire-source-partition"
    SOURCE_OFFSET = "imagewire-source-offset"
    TIMESTAMP = "imagewire-timestamp"
    ATTEMPT = "imagewire-attempt"
    VALUE_OMITTED = "imagewire-value-omitted"


def _content_id(frame: Frame) -> str | None:
    fingerprint = frame.findings.fingerprint
    return None if fingerprint is None else fingerprint.content_id


def _address(frame: Frame) -> str | None:
    """Where the image is. A `data:` address is no place but the picture itself, with every face in
    it, which nobody gets who is told of a verdict."""
    uri = frame.uri
    return None if uri is None or uri[:5].lower() == "data:" else uri


def verdict_record(frame: Frame, verdict: Verdict) -> VerdictRecord:
    """What moderation consumers are told about `frame`."""
    return VerdictRecord(
        image_id=frame.image_id,
        content_id=_content_id(frame),
        feed=frame.feed,
        event_time=rfc3339(frame.event_time_ms),
        uri=_address(frame),
        action=verdict.action,
        rules=verdict.rules,
        policy=verdict.policy,
        decided_by=verdict.decided_by,
        machine_action=verdict.machine_action or UNSET,
        decision_id=verdict.decision_id or UNSET,
        decided_at=verdict.decided_at or UNSET,
    )


def review_record(frame: Frame, verdict: Verdict) -> ReviewRecord:
    """What a reviewer needs in order to decide about `frame`."""
    findings = frame.findings
    return ReviewRecord(
        image_id=frame.image_id,
        content_id=_content_id(frame),
        feed=frame.feed,
        event_time=rfc3339(frame.event_time_ms),
        uri=_address(frame),
        action=verdict.action,
        rules=verdict.rules,
        policy=verdict.policy,
        metadata=frame.metadata,
        image=findings.image,
        objects=findings.objects,
        texts=findings.texts,
        scores=findings.scores,
        hashes=findings.hashes,
        similar=findings.similar,
        terms=findings.terms,
        redactions=findings.redactions,
        faces=findings.faces,
        why="policy" if verdict.action == "review" else "audit",
        audit=verdict.audit,
    )


def findings_record(frame: Frame, include_embedding: bool = False) -> FindingsRecord:
    """Everything that was found in `frame`."""
    findings = frame.findings
    return FindingsRecord(
        image_id=frame.image_id,
        content_id=_content_id(frame),
        feed=frame.feed,
        event_time=rfc3339(frame.event_time_ms),
        uri=_address(frame),
        metadata=frame.metadata,
        image=findings.image,
        objects=findings.objects,
        texts=findings.texts,
        scores=findings.scores,
        fingerprint=findings.fingerprint,
        extra=findings.extra,
        models=findings.models,
        verdict=findings.verdict,
        embedding=(
            findings.embedding if include_embedding and findings.embedding is not None else UNSET
        ),
        hashes=findings.hashes,
        similar=findings.similar,
        terms=findings.terms,
        redactions=findings.redactions,
        faces=findings.faces,
    )


def output_headers(frame: Frame) -> list[tuple[str, bytes]]:
    """The headers of every record about `frame` except its dead letter."""
    origin = frame.origin
    return [
        (_IMAGE_ID, frame.image_id.encode()),
        (_FEED, frame.feed.encode()),
        (_SOURCE_TOPIC, origin.topic.encode()),
        (_SOURCE_PARTITION, b"%d" % origin.partition),
        (_SOURCE_OFFSET, b"%d" % origin.offset),
    ]


def dead_letter_headers(frame: Frame) -> list[tuple[str, bytes]]:
    """The producer's headers, untouched and in order, then why and where `frame` failed.

    Headers of an earlier failure are replaced: a record that was replayed from the dead-letter
    topic carries them, and two values of one name would leave the reader to guess.

    Raises:
        ValueError: the frame has not failed.
    """
    failure = frame.failure
    if failure is None:
        raise ValueError(f"frame {frame.image_id} has not failed; it is no dead letter")
    own = {header.value for header in DeadLetterHeader}
    given = [(name, value) for name, value in frame.origin.headers if name not in own]
    stated: list[tuple[DeadLetterHeader, str]] = [
        (DeadLetterHeader.STAGE, failure.stage),
        (DeadLetterHeader.REASON, failure.reason),
        (DeadLetterHeader.DETAIL, failure.detail),
        (DeadLetterHeader.IMAGE_ID, frame.image_id),
        (DeadLetterHeader.FEED, frame.feed),
        (DeadLetterHeader.SOURCE_TOPIC, frame.origin.topic),
        (DeadLetterHeader.SOURCE_PARTITION, str(frame.origin.partition)),
        (DeadLetterHeader.SOURCE_OFFSET, str(frame.origin.offset)),
        (DeadLetterHeader.TIMESTAMP, str(frame.origin.timestamp_ms)),
        (DeadLetterHeader.ATTEMPT, str(failed_attempts(frame.origin) + 1)),
    ]
    return given + [
        (header.value, text.encode("utf-8", errors="replace")) for header, text in stated
    ]
