"""A replay is the image that failed; and its headers give a forger nothing."""

from __future__ import annotations

import uuid

import pytest

from operators.frame import Origin
from sinks.replay import as_first_received, failed_attempts, first_derived_id
from streams.records import frame_from_record

FIRST = Origin("images", 2, 41, 1_790_000_000_000, b"gate", b'{"uri": "https://a.example/b"}')
LATER = 1_790_000_900_000


def replayed(
    first: Origin = FIRST, attempt: bytes | None = b"1", **changed: bytes | None
) -> Origin:
    headers: dict[str, bytes | None] = {
        "imagewire-attempt": attempt,
        "imagewire-image-id": first.derived_id().encode(),
        "imagewire-timestamp": str(first.timestamp_ms).encode(),
    } | {f"imagewire-{name.replace('_', '-')}": value for name, value in changed.items()}
    return Origin(
        "images",
        0,
        97,
        LATER,
        first.key,
        first.value,
        (*first.headers, *headers.items()),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    "first",
    [
        FIRST,
        Origin("images", 1, 5, 1_790_000_000_001, None, b"\xff\xd8\xff..."),
        Origin("images", 1, 6, 1_790_000_000_002, None, b"neither JSON nor an image"),
        Origin("images", 1, 7, -1, None, b'{"uri": "https://a.example/b"}'),
        Origin("images", 1, 8, 5, None, b'{"uri": "https://a.example/b", "id": "mine"}'),
        Origin("images", 1, 9, 6, None, b'{"uri": "data:,x", "captured_at": 1790000000003}'),
        Origin("images", 1, 9, 6, None, b"\x89PNG", (("image-id", b"i"), ("captured-at", b"2026"))),
    ],
)
def test_a_replay_has_the_identity_of_the_first_record(first: Origin) -> None:
    before, after = frame_from_record(first), frame_from_record(replayed(first))
    for name in ("image_id", "feed", "event_time_ms", "id_given", "captured_at_given", "metadata"):
        assert getattr(after, name) == getattr(before, name), name
    # The version of its rows is that of the first record, its place that of the new one.
    assert after.origin.timestamp_ms == first.timestamp_ms
    assert (after.origin.partition, after.origin.offset) == (0, 97)


def test_forged_headers_change_nothing_that_was_given() -> None:
    """Neither an id nor a time of the producer's, and no record becomes newer than it is."""
    named = Origin("images", 0, 1, 7, None, b'{"uri": "data:,x", "id": "a", "captured_at": 9}')
    forged = frame_from_record(replayed(named, image_id=str(uuid.uuid4()).encode(), timestamp=b"8"))
    assert (forged.image_id, forged.event_time_ms) == ("a", 9)
    newer = as_first_received(replayed(timestamp=b"99999999999999999"))
    assert newer.timestamp_ms == LATER
    for name in (
        b"somebody",
        b"\xff",
        str(uuid.uuid4()).encode(),
        b"{" + FIRST.derived_id().encode(),
    ):
        forged_id = replayed(image_id=name)
        assert first_derived_id(forged_id) == forged_id.derived_id()


@pytest.mark.parametrize(
    "attempt", [None, b"", b"0", b"-3", b"x", b"1.5", b"9" * 5000, b"\xd9\xa3", b" 1"]
)
def test_what_counts_no_attempts_is_no_replay(attempt: bytes | None) -> None:
    origin = replayed(attempt=attempt)
    assert failed_attempts(origin) == 0
    assert as_first_received(origin) is origin
    assert first_derived_id(origin) == origin.derived_id()


@pytest.mark.parametrize("timestamp", [None, b"", b"soon", b"9" * 5000, b"--1"])
def test_a_timestamp_that_is_none_is_passed_over(timestamp: bytes | None) -> None:
    assert as_first_received(replayed(timestamp=timestamp)).timestamp_ms == LATER
