"""What a replayed record brings along, so that it is the image that failed and not a new one.

A dead letter is published again as a new record, at another offset and at another time. An image
whose producer named neither id nor time has both from its first record, so the headers of the dead
letter carry them: without them the image would be stored under a second identity, and its failure
would stay open for ever. Anybody who may publish can write these headers; hence they only stand in
for what is derived otherwise, and can only make a record older.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import replace

from operators.frame import Origin

ATTEMPT_HEADER = "imagewire-attempt"
"""How often the record has become a dead letter; its presence says that this is a replay."""
IMAGE_ID_HEADER = "imagewire-image-id"
TIMESTAMP_HEADER = "imagewire-timestamp"
"""The Kafka timestamp of the image's first record, in milliseconds since the epoch."""

REPLAY_HEADERS = frozenset({ATTEMPT_HEADER, IMAGE_ID_HEADER, TIMESTAMP_HEADER})
"""The headers of a dead letter that a replay keeps, beside those of the producer."""

_MOST_DIGITS = 18
"""Of a number in a header, so that any fits 64 bits."""


def failed_attempts(origin: Origin) -> int:
    """How often this record has become a dead letter before; 0 for a record that is no replay."""
    return max(_number(_header(origin.headers, ATTEMPT_HEADER)) or 0, 0)


def as_first_received(origin: Origin) -> Origin:
    """`origin` with the timestamp of the image's first record, if it is a replay.

    The event time of an image without `captured_at` comes from there, and so does the version of
    its rows: an old record that is replayed does not overwrite what a newer one found.
    """
    first = _number(_header(origin.headers, TIMESTAMP_HEADER))
    if first is None or not failed_attempts(origin):
        return origin
    return replace(origin, timestamp_ms=min(first, origin.timestamp_ms))


def first_derived_id(origin: Origin) -> str:
    """The image id of a record whose producer gave none: that of the image's first record."""
    named = _header(origin.headers, IMAGE_ID_HEADER)
    if named is not None and failed_attempts(origin):
        try:
            first = uuid.UUID(named.decode("ascii"))
        except ValueError:
            return origin.derived_id()
        # Derived ids are UUIDs of version 5 in their usual form, and nothing else is taken for one.
        if first.version == 5 and str(first).encode() == named:
            return str(first)
    return origin.derived_id()


def _header(headers: Iterable[tuple[str, bytes | None]], name: str) -> bytes | None:
    for found, value in headers:  # a generator would take three times as long, for each image
        if found == name:
            return value
    return None


def _number(text: bytes | None) -> int | None:
    """A decimal number of at most 18 digits; `None` for anything else."""
    if not text or len(text) > _MOST_DIGITS + 1:
        return None
    digits = text.removeprefix(b"-")
    return int(text) if digits.isdigit() and len(digits) <= _MOST_DIGITS else None
