"""What people decide over images, as it comes on the topic of decisions.

Whoever may write there decides over images, and tools of any make may do so; so a decision is
checked as strictly as an image reference, and one that cannot be taken becomes a dead letter at the
stage `review`. Decisions are ordered by when they were made, then by their ids, in whatever order
they arrive: the latest of an image, or of its content, stands.
"""

from __future__ import annotations

import datetime as dt
import time
from typing import Annotated, Literal

import msgspec

from operators.findings import Action
from operators.frame import Frame, Origin
from streams.record_fields import (
    MAX_FEED_LENGTH,
    MAX_ID_LENGTH,
    RecordError,
    checked_name,
    without_mark,
)

Choice = Literal["allow", "block", "withdraw"]

STAGE = "review"
"""The stage of dead letters that are decisions which could not be taken."""

MAX_DECISION_BYTES = 64 * 1024
MAX_REASON_LENGTH = 4000
MAX_LABELS = 50
LATEST_MS = 4_102_444_800_000
"""The beginning of 2100, in milliseconds since the epoch."""
_AHEAD_MS = 300_000
"""How far a reviewer's clock may be ahead: a decision of the far future would stand for ever."""

_BROKER_AHEAD_MS = 3_600_000
"""How far a record may be ahead of this machine's clock; Kafka itself refuses over an hour."""

Order = tuple[int, str]
"""When a decision was made, in milliseconds since the epoch, and its id."""


class ReviewDecision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A record of the topic `images.reviews`: what a person decided over an image.

    `image_id`: the image. `decision`: `allow` or `block`; `withdraw` takes the last decision back,
    so that the policy's verdict stands again. `reviewer`: who decided. `content_id`: SHA-256 of the
    image's bytes, 64 hexadecimal digits, looked up when it is missing; the decision holds for other
    images with the same bytes too. `decided_at`: RFC 3339; the record's time when it is missing.
    `decision_id`: the same id again is the same decision; derived from the record's place when it
    is missing. `reason` and `labels`: what the reviewer has to say. `feed`, `event_time` and
    `uri`: as in the record of the verdict, looked up when they are missing.
    """

    image_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH)]
    decision: Choice
    reviewer: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    content_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")] | None = None
    reason: Annotated[str, msgspec.Meta(max_length=MAX_REASON_LENGTH)] = ""
    labels: Annotated[
        list[Annotated[str, msgspec.Meta(min_length=1, max_length=64)]],
        msgspec.Meta(max_length=MAX_LABELS),
    ] = []
    decided_at: str | None = None
    decision_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    feed: Annotated[str, msgspec.Meta(max_length=MAX_FEED_LENGTH)] | None = None
    event_time: str | None = None
    uri: Annotated[str, msgspec.Meta(max_length=8192)] | None = None


_decode = msgspec.json.Decoder(ReviewDecision).decode


class Decision(msgspec.Struct, frozen=True):
    """A decision that was checked, with everything that was derived.

    `decided_at_ms` and `event_time_ms`: milliseconds since the epoch.
    """

    image_id: str
    choice: Choice
    reviewer: str
    decided_at_ms: int
    decision_id: str
    content_id: str | None = None
    reason: str = ""
    labels: tuple[str, ...] = ()
    feed: str | None = None
    event_time_ms: int | None = None
    uri: str | None = None

    @property
    def order(self) -> Order:
        return self.decided_at_ms, self.decision_id

    @property
    def action(self) -> Action | None:
        """What it asks for; `None` if it takes a decision back."""
        return None if self.choice == "withdraw" else self.choice


def decision_from_record(origin: Origin, now_ms: int | None = None) -> Decision:
    """The decision that a Kafka record is.

    Args:
        now_ms: the time, in milliseconds since the epoch; this machine's when not given.

    Raises:
        RecordError: it is none; `reason` is a short code for machines.
    """
    value = origin.value
    if not value:
        raise RecordError("empty-record", "the record has no value; send a decision as JSON")
    if len(value) > MAX_DECISION_BYTES:
        raise RecordError(
            "too-long", f"a decision has {len(value)} bytes; at most {MAX_DECISION_BYTES}"
        )
    try:
        record = _decode(without_mark(value))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError("not-a-decision", f"the value is no decision: {error}") from error
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    arrived = origin.timestamp_ms if origin.timestamp_ms > 0 else now
    decided_at = arrived if record.decided_at is None else _moment("decided_at", record.decided_at)
    # This machine's clock may be behind the broker's; but not every broker looks at what time a
    # producer gives its record.
    latest = max(min(arrived, now + _BROKER_AHEAD_MS), now)
    if decided_at > latest + _AHEAD_MS:
        raise RecordError(
            "bad-decided-at",
            f"{_said(record)} lies in the future: such a decision would "
            "outrank all that follow; set the clock of the reviewer's machine right",
        )
    return Decision(
        image_id=checked_name("'image_id'", record.image_id, MAX_ID_LENGTH) or "",
        choice=record.decision,
        reviewer=checked_name("'reviewer'", record.reviewer, 128) or "",
        decided_at_ms=decided_at,
        decision_id=checked_name("'decision_id'", record.decision_id, 128) or origin.derived_id(),
        content_id=record.content_id,
        reason=record.reason,
        labels=tuple(checked_name("a label", label, 64) or "" for label in record.labels),
        feed=checked_name("'feed'", record.feed, MAX_FEED_LENGTH),
        event_time_ms=None
        if record.event_time is None
        else _moment("event_time", record.event_time),
        uri=record.uri,
    )


def _said(record: ReviewDecision) -> str:
    if record.decided_at is None:
        return "the record's time on Kafka"
    return f"decided_at ({record.decided_at[:40]})"


def failed_decision(origin: Origin, reason: str, detail: str) -> Frame:
    """The dead letter of a record that is no decision."""
    frame = Frame(
        image_id=_salvaged_id(origin) or origin.derived_id(),
        feed="default",
        event_time_ms=max(origin.timestamp_ms, 0),
        origin=origin,
    )
    frame.fail(STAGE, reason, detail)
    return frame


def _salvaged_id(origin: Origin) -> str | None:
    if not origin.value or len(origin.value) > MAX_DECISION_BYTES:
        return None
    try:
        fields = msgspec.json.decode(without_mark(origin.value))
        named = fields.get("image_id") if isinstance(fields, dict) else None
        return checked_name("image_id", named, MAX_ID_LENGTH) if isinstance(named, str) else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, RecordError):
        return None  # then it goes by its place on Kafka


def _moment(name: str, text: str) -> int:
    try:
        moment = dt.datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
        milliseconds = int(moment.timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise RecordError(
            f"bad-{name.replace('_', '-')}",
            f"{name} is '{text[:40]}'; write RFC 3339, such as 2026-01-31T12:00:00Z",
        ) from error
    if not 0 <= milliseconds <= LATEST_MS:
        raise RecordError(
            f"bad-{name.replace('_', '-')}", f"{name} ({text[:40]}) lies outside 1970 to 2100"
        )
    return milliseconds
