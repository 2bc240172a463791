"""An image in flight. A frame carries its own fate: it succeeds or fails alone.

Frames travel in batches, but a frame that cannot be fetched, decoded or analysed only records a
`Failure` naming the stage and the reason, and its neighbours go on.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from operators.findings import Findings

if TYPE_CHECKING:
    # Loading torch takes seconds, which commands that only publish or read would wait for.
    import torch

NAMESPACE = uuid.UUID("5d1bb0a2-6d5c-5f9e-9a37-2f6f6f0f8f11")
"""Namespace of every UUIDv5 that Imagewire derives. Changing it would change stored identities."""


def point_id_of(image_id: str) -> str:
    """The UUID of an image in vector stores: `image_id` if it is a UUID, else its UUIDv5."""
    try:
        return str(uuid.UUID(image_id))
    except ValueError:
        return str(uuid.uuid5(NAMESPACE, image_id))


class Lane(StrEnum):
    """`live` frames are served first; `bulk` fills what live leaves."""

    LIVE = "live"
    BULK = "bulk"


class Stage(StrEnum):
    """Where a frame can fail, in the order of the pipeline. Operators use their own name."""

    PARSE = "parse"
    FETCH = "fetch"
    DECODE = "decode"
    POLICY = "policy"
    SINK = "sink"


@dataclass(frozen=True, slots=True)
class Origin:
    """The Kafka record that a frame came from, untouched, so that a dead letter can be replayed.

    `timestamp_ms` is the record's Kafka timestamp in milliseconds since the epoch.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()

    def derived_id(self) -> str:
        """The image id of a record whose producer gave none: UUIDv5 of topic/partition/offset."""
        return str(uuid.uuid5(NAMESPACE, f"{self.topic}/{self.partition}/{self.offset}"))


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a frame became a dead letter.

    Attributes:
        stage: a `Stage` or an operator's name.
        reason: a short stable code for machines, such as `http-status` or `not-an-image`.
        detail: one sentence for people: what was wrong and what to do.
    """

    stage: str
    reason: str
    detail: str


@dataclass(slots=True, eq=False)
class Frame:
    """One image on its way through the pipeline.

    Attributes:
        image_id: the producer's id, else `origin.derived_id()`.
        feed: the named source that the image belongs to.
        event_time_ms: `captured_at`, else the Kafka timestamp; milliseconds since the epoch, UTC.
        origin: the Kafka record.
        id_given: the producer named the id (so the same id may arrive again in another record).
        captured_at_given: the event time came from the producer, not from Kafka.
        uri: where the bytes are; `None` when they came inside the record.
        content: the encoded bytes, once fetched; released after decoding.
        pixels: uint8 tensor of shape (height, width, 3), RGB, upright, on any device; released
            after the last operator. Smaller than the picture is (`findings.image`) if no operator
            needs more; see `operators.least_size`.
        findings: filled by the operators.
        failure: set once, by the first stage that fails.
        received_at: `time.monotonic()` when the record was taken from Kafka; batch age counts
            from here.
    """

    image_id: str
    feed: str
    event_time_ms: int
    origin: Origin
    id_given: bool = False
    captured_at_given: bool = False
    lane: Lane = Lane.LIVE
    uri: str | None = None
    content_type: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    content: bytes | None = None
    pixels: torch.Tensor | None = None
    findings: Findings = field(default_factory=Findings)
    failure: Failure | None = None
    received_at: float = field(default_factory=time.monotonic)

    @property
    def failed(self) -> bool:
        return self.failure is not None

    def fail(self, stage: str, reason: str, detail: str) -> None:
        """Record why this frame becomes a dead letter. The first failure stands."""
        if self.failure is None:
            self.failure = Failure(str(stage), reason, detail)

    @property
    def point_id(self) -> str:
        """The frame's UUID in vector stores."""
        return point_id_of(self.image_id)
