"""What arrives on the `images` topics: an image reference in JSON, or the image's bytes themselves.

A record that is neither still becomes a frame, one that has already failed at the stage `parse`, so
that it takes the ordinary way to the dead letters and its offset is acknowledged in order.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
import re
from typing import Annotated, Any

import msgspec

from operators.frame import Frame, Lane, Origin, Stage
from sinks.replay import as_first_received, first_derived_id
from streams.record_fields import (
    MAX_FEED_LENGTH,
    MAX_ID_LENGTH,
    MAX_REFERENCE_BYTES,
    RecordError,
    checked_name,
    first_headers,
    header_text,
    salvaged_names,
    without_mark,
)

logger = logging.getLogger(__name__)

DEFAULT_FEED = "default"
MAX_URI_LENGTH = 8192
MAX_METADATA_BYTES = 65_536
MAX_METADATA_DEPTH = 16
OWN_HEADER_PREFIX = "imagewire-"
"""Headers that Imagewire writes itself; they never become metadata."""

_KNOWN_HEADERS = frozenset({"image-id", "feed", "captured-at", "content-type", "lane"})

_LATEST_MS = 9_223_372_036_854
"""2262-04-11T23:47:16.854Z, the last millisecond whose nanoseconds fit 64 bits, and so the last
that ClickHouse's DateTime64 holds in every precision."""

_MILLISECONDS = re.compile(r"[0-9]{9,16}")
"""Milliseconds since the epoch in digits; eight digits are a date (20260131)."""

_IMAGE_MAGIC: tuple[bytes, ...] = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG",
    b"RIFF",  # WebP
    b"GIF8",
    b"BM",
    b"II*\x00",  # TIFF, little endian
    b"MM\x00*",  # TIFF, big endian
)


class ImageReference(msgspec.Struct, frozen=True, omit_defaults=True):
    """A record of the topic `images` that names an image.

    `id`: the producer's own name for the image; publishing the same id again overwrites.
    `uri`: where the bytes are: https:, http:, s3:, gs:, az:, file: or data:.
    `feed`: the source it belongs to, such as a camera or an upload stream.
    `captured_at`: when the picture was taken, RFC 3339 or milliseconds since the epoch.
    `lane`: `live` or `bulk`; without it the topic decides.
    `metadata`: anything else worth keeping; unknown fields of the record are added to it.
    """

    uri: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_URI_LENGTH)]
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH)] | None = None
    feed: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_FEED_LENGTH)] | None = None
    captured_at: str | int | None = None
    lane: Lane | None = None
    metadata: dict[str, Any] = {}


_KNOWN_FIELDS = frozenset(ImageReference.__struct_fields__)


class _OnlyKnownFields(ImageReference, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What nearly all references are: they are read in one go."""


_decode_known_fields = msgspec.json.Decoder(_OnlyKnownFields).decode

_ALWAYS_SMALL = MAX_METADATA_BYTES // 8
"""A record of so many bytes cannot hold too much metadata: what grows most when it is written again
is a number such as 1e15 (four bytes), as 1000000000000000.0."""


def frame_from_record(origin: Origin, lane: Lane = Lane.LIVE) -> Frame:
    """Turn a Kafka record into a frame; a record that is none into a frame that has failed."""
    origin = as_first_received(origin)
    try:
        headers = first_headers(origin)
        if _is_inline(headers, origin.value or b""):
            return _inline_frame(origin, headers, lane)
        return _reference_frame(origin, headers, lane)
    except RecordError as error:
        return _failed_frame(origin, lane, error.reason, str(error))
    except Exception as error:
        # A defect here must not end the worker: the same record would end the next one as well.
        where = f"{origin.topic}/{origin.partition}/{origin.offset}"
        logger.exception("reading the record %s failed unexpectedly", where)
        return _failed_frame(
            origin,
            lane,
            "internal-error",
            f"reading the record failed with {type(error).__name__}: {error}; see the worker's log",
        )


def _failed_frame(origin: Origin, lane: Lane, reason: str, detail: str) -> Frame:
    image_id, feed = salvaged_names(origin)
    frame = Frame(
        image_id=image_id or first_derived_id(origin),
        feed=feed or DEFAULT_FEED,
        event_time_ms=_sane_ms(origin.timestamp_ms),
        origin=origin,
        id_given=image_id is not None,
        lane=lane,
    )
    frame.fail(Stage.PARSE, reason, detail)
    return frame


def _is_inline(headers: dict[str, bytes], value: bytes) -> bool:
    """Whether the value is the image itself: its content type says so, else its first bytes."""
    content_type = headers.get("content-type")
    if content_type:
        content_type = content_type.split(b";")[0].strip().lower()
        if content_type.startswith(b"image/") or content_type == b"application/octet-stream":
            return True
        if content_type in (b"application/json", b"text/json"):
            return False
    return value.startswith(_IMAGE_MAGIC) or value[4:8] == b"ftyp"


def _inline_frame(origin: Origin, headers: dict[str, bytes], lane: Lane) -> Frame:
    image_id = header_text(headers, "image-id")
    captured_at = header_text(headers, "captured-at")
    metadata: dict[str, Any] = {
        name: value.decode("utf-8", errors="replace")
        for name, value in headers.items()
        if name not in _KNOWN_HEADERS and not name.startswith(OWN_HEADER_PREFIX)
    }
    return Frame(
        image_id=checked_name("header 'image-id'", image_id, MAX_ID_LENGTH)
        or first_derived_id(origin),
        feed=checked_name("header 'feed'", header_text(headers, "feed"), MAX_FEED_LENGTH)
        or DEFAULT_FEED,
        event_time_ms=_event_time_ms(captured_at, origin),
        origin=origin,
        id_given=image_id is not None,
        captured_at_given=captured_at is not None,
        lane=_lane(header_text(headers, "lane")) or lane,
        content_type=header_text(headers, "content-type"),
        metadata=_checked_metadata(metadata) if metadata else metadata,
        content=origin.value or b"",
    )


def _reference_frame(origin: Origin, headers: dict[str, bytes], lane: Lane) -> Frame:
    reference, metadata = _reference(origin.value)
    image_id = reference.id or header_text(headers, "image-id")
    captured_at = reference.captured_at
    if captured_at is None:
        captured_at = header_text(headers, "captured-at")
    return Frame(
        image_id=checked_name("'id'", image_id, MAX_ID_LENGTH) or first_derived_id(origin),
        feed=checked_name("'feed'", reference.feed or header_text(headers, "feed"), MAX_FEED_LENGTH)
        or DEFAULT_FEED,
        event_time_ms=_event_time_ms(captured_at, origin),
        origin=origin,
        id_given=image_id is not None,
        captured_at_given=captured_at is not None,
        lane=reference.lane or _lane(header_text(headers, "lane")) or lane,
        uri=checked_name("'uri'", reference.uri, MAX_URI_LENGTH),
        metadata=metadata,
    )


def _reference(value: bytes | None) -> tuple[ImageReference, dict[str, Any]]:
    """The reference that `value` is, and its metadata, unknown fields included."""
    if not value:
        raise RecordError(
            "empty-record",
            "the record has no value; send an image reference as JSON, or an image's bytes with "
            "the header content-type: image/…",
        )
    if len(value) <= _ALWAYS_SMALL:
        try:
            reference: ImageReference = _decode_known_fields(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass  # it has other fields or is broken: looked at field by field below
        else:
            metadata = reference.metadata
            if any(isinstance(held, dict | list) for held in metadata.values()):
                _check_depth(metadata)
            return reference, metadata
    if len(value) > MAX_REFERENCE_BYTES:
        raise RecordError(
            "too-long",
            f"the value has {len(value)} bytes and is no image that is recognised; an image "
            f"reference has at most {MAX_REFERENCE_BYTES}, and an image's bytes need the header "
            "content-type: image/…",
        )
    try:
        fields = msgspec.json.decode(without_mark(value))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError(
            "not-a-record",
            f"the value is neither JSON ({error}) nor an image that is recognised; send an image "
            "reference as JSON, or an image's bytes with the header content-type: image/…",
        ) from error
    if not isinstance(fields, dict):
        raise RecordError(
            "not-a-reference",
            f"the value is JSON but no object (it is {type(fields).__name__}); an image reference "
            'is an object such as {"uri": "https://…"}',
        )
    try:
        reference = msgspec.convert(
            {name: value for name, value in fields.items() if name in _KNOWN_FIELDS},
            ImageReference,
        )
    except msgspec.ValidationError as error:
        raise RecordError("not-a-reference", f"not an image reference: {error}") from error
    unknown = {name: value for name, value in fields.items() if name not in _KNOWN_FIELDS}
    return reference, _checked_metadata({**unknown, **reference.metadata})


def _checked_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    size = len(msgspec.json.encode(metadata))
    if size > MAX_METADATA_BYTES:
        raise RecordError(
            "too-much-metadata",
            f"metadata takes {size} bytes as JSON; at most {MAX_METADATA_BYTES}",
        )
    _check_depth(metadata)
    return metadata


def _check_depth(metadata: dict[str, Any]) -> None:
    pending: list[tuple[Any, int]] = [(metadata, 1)]
    while pending:
        item, level = pending.pop()
        if level > MAX_METADATA_DEPTH:
            raise RecordError(
                "too-deep-metadata", f"metadata is nested deeper than {MAX_METADATA_DEPTH} levels"
            )
        if isinstance(item, dict | list):
            children = item.values() if isinstance(item, dict) else item
            pending.extend((child, level + 1) for child in children)


def _lane(value: str | None) -> Lane | None:
    if value is None:
        return None
    try:
        return Lane(value)
    except ValueError as error:
        raise RecordError("bad-lane", f"lane is '{value[:40]}'; use 'live' or 'bulk'") from error


def _event_time_ms(captured_at: str | int | None, origin: Origin) -> int:
    if captured_at is None:
        return _sane_ms(origin.timestamp_ms)
    if isinstance(captured_at, int):
        milliseconds = captured_at
    elif _MILLISECONDS.fullmatch(captured_at):
        # Headers are text, so this is how they carry milliseconds.
        milliseconds = int(captured_at)
    else:
        try:
            moment = dt.datetime.fromisoformat(captured_at)
        except ValueError as error:
            raise RecordError(
                "bad-captured-at",
                f"captured_at is '{captured_at[:40]}'; write RFC 3339, such as "
                "2026-01-31T12:00:00Z, or milliseconds since the epoch",
            ) from error
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
        milliseconds = math.floor(moment.timestamp() * 1000)
    if not 0 <= milliseconds <= _LATEST_MS:
        raise RecordError(
            "bad-captured-at",
            f"captured_at ({str(captured_at)[:40]}) lies outside the years 1970 to 2262",
        )
    return milliseconds


def _sane_ms(milliseconds: int) -> int:
    """Kafka timestamps are the producer's clock and may be anything, -1 included."""
    return min(max(milliseconds, 0), _LATEST_MS)
