"""Promises about what becomes of a Kafka record: a frame always, a failed one where it must be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.frame import Frame, Lane, Origin
from streams.records import (
    DEFAULT_FEED,
    MAX_FEED_LENGTH,
    MAX_ID_LENGTH,
    MAX_METADATA_BYTES,
    MAX_METADATA_DEPTH,
    MAX_REFERENCE_BYTES,
    MAX_URI_LENGTH,
    frame_from_record,
)

JPEG = b"\xff\xd8\xff\xe0 some bytes"
TIMESTAMP = 1_700_000_000_000


def record(value: bytes | None, **headers: bytes) -> Origin:
    """A record; header names are written with underscores here."""
    pairs = tuple((name.replace("_", "-"), content) for name, content in headers.items())
    return Origin("images", 3, 42, TIMESTAMP, b"key", value, pairs)


def reference(**fields: Any) -> Origin:
    return record(json.dumps({"uri": "https://example.com/a.jpg", **fields}).encode())


def reason(frame: Frame) -> str:
    assert frame.failure is not None
    assert frame.failure.stage == "parse"
    assert frame.failure.detail
    return frame.failure.reason


def test_the_smallest_reference_gets_an_id_of_its_place_in_kafka_and_kafkas_time() -> None:
    frame = frame_from_record(reference())
    assert not frame.failed
    assert frame.uri == "https://example.com/a.jpg"
    assert frame.image_id == frame.origin.derived_id()
    assert not frame.id_given
    assert frame.feed == DEFAULT_FEED
    assert frame.event_time_ms == TIMESTAMP
    assert not frame.captured_at_given
    assert frame.content is None
    assert frame.lane is Lane.LIVE


def test_every_field_of_a_reference_is_taken() -> None:
    frame = frame_from_record(
        reference(
            id="one",
            feed="door",
            captured_at="2026-01-31T12:00:00Z",
            lane="bulk",
            metadata={"camera": {"floor": 2}},
        )
    )
    assert (frame.image_id, frame.id_given) == ("one", True)
    assert frame.feed == "door"
    assert (frame.event_time_ms, frame.captured_at_given) == (1_769_860_800_000, True)
    assert frame.lane is Lane.BULK
    assert frame.metadata == {"camera": {"floor": 2}}


def test_unknown_fields_are_kept_in_metadata_and_never_overwrite_it() -> None:
    frame = frame_from_record(reference(user=7, shop="x", metadata={"shop": "y"}))
    assert frame.metadata == {"user": 7, "shop": "y"}


def test_image_bytes_are_taken_with_their_headers() -> None:
    frame = frame_from_record(
        record(
            JPEG,
            image_id=b"one",
            feed="Tür".encode(),
            captured_at=b"2026-01-31T12:00:00+01:00",
            content_type=b"image/jpeg",
            lane=b"bulk",
            order=b"77",
            imagewire_source_topic=b"ours",
        )
    )
    assert not frame.failed
    assert frame.content == JPEG
    assert frame.uri is None
    assert (frame.image_id, frame.feed) == ("one", "Tür")
    assert frame.event_time_ms == 1_769_857_200_000
    assert frame.content_type == "image/jpeg"
    assert frame.lane is Lane.BULK
    assert frame.metadata == {"order": "77"}


@pytest.mark.parametrize(
    "start",
    [
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n",
        b"RIFF\0\0\0\0WEBP",
        b"GIF89a",
        b"BM\0\0",
        b"II*\0",
        b"MM\0*",
        b"\0\0\0\x1cftypavif",
    ],
)
def test_images_are_recognised_without_any_header(start: bytes) -> None:
    frame = frame_from_record(record(start + b"..."))
    assert not frame.failed
    assert frame.content == start + b"..."


def test_a_content_type_decides_over_the_first_bytes() -> None:
    strange = frame_from_record(record(b"{}", content_type=b"Image/X-Strange; a=b"))
    assert strange.content == b"{}"
    octets = frame_from_record(record(b"{}", content_type=b"application/octet-stream"))
    assert octets.content == b"{}"
    said_json = frame_from_record(record(JPEG, content_type=b"application/json"))
    assert reason(said_json) == "not-a-record"


def test_an_image_of_no_bytes_is_left_for_the_decoder_to_name() -> None:
    for value in (b"", None):
        frame = frame_from_record(record(value, content_type=b"image/png"))
        assert not frame.failed
        assert frame.content == b""


def test_headers_name_what_the_reference_does_not() -> None:
    value = b'{"uri": "https://example.com/a.jpg"}'
    frame = frame_from_record(
        record(value, image_id=b"one", feed=b"door", captured_at=b"1769860800000", lane=b"bulk")
    )
    assert (frame.image_id, frame.feed, frame.lane) == ("one", "door", Lane.BULK)
    assert frame.event_time_ms == 1_769_860_800_000


def test_the_first_of_repeated_headers_counts_whatever_its_case() -> None:
    origin = Origin("images", 0, 0, TIMESTAMP, None, JPEG, (("Feed", b"a"), ("feed", b"b")))
    assert frame_from_record(origin).feed == "a"


def test_the_topics_lane_holds_unless_the_record_names_one() -> None:
    assert frame_from_record(reference(), Lane.BULK).lane is Lane.BULK
    assert frame_from_record(reference(lane="live"), Lane.BULK).lane is Lane.LIVE


@pytest.mark.parametrize(
    ("captured_at", "expected"),
    [
        ("2026-01-31T12:00:00Z", 1_769_860_800_000),
        ("2026-01-31T12:00:00.123456Z", 1_769_860_800_123),
        ("2026-01-31T13:30:00+01:30", 1_769_860_800_000),
        ("2026-01-31T12:00:00", 1_769_860_800_000),
        ("2026-01-31", 1_769_817_600_000),
        ("20260131", 1_769_817_600_000),
        (1_769_860_800_123, 1_769_860_800_123),
        ("1769860800123", 1_769_860_800_123),
        (0, 0),
    ],
)
def test_captured_at_is_rfc_3339_or_milliseconds(captured_at: str | int, expected: int) -> None:
    frame = frame_from_record(reference(captured_at=captured_at))
    assert not frame.failed, frame.failure
    assert frame.event_time_ms == expected


@pytest.mark.parametrize(
    "captured_at",
    [
        "yesterday",
        "",
        "1969-12-31T23:59:59Z",
        "2262-04-12",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "9" * 16,
        -1,
        10**30,
    ],
)
def test_a_time_that_makes_no_sense_is_a_dead_letter(captured_at: str | int) -> None:
    frame = frame_from_record(reference(captured_at=captured_at))
    assert reason(frame) == "bad-captured-at"
    assert frame.event_time_ms == TIMESTAMP


@pytest.mark.parametrize("timestamp", [-1, -(2**63), 2**63])
def test_kafka_timestamps_are_brought_into_the_range_that_stores_hold(timestamp: int) -> None:
    frame = frame_from_record(Origin("images", 0, 0, timestamp, None, JPEG))
    assert not frame.failed
    assert 0 <= frame.event_time_ms < 9_224_318_016_000


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"id": ""}, "not-a-reference"),
        ({"id": "x" * (MAX_ID_LENGTH + 1)}, "not-a-reference"),
        ({"id": 7}, "not-a-reference"),
        ({"id": "a\x00b"}, "bad-characters"),
        ({"id": "a\nb"}, "bad-characters"),
        ({"id": "a\u202eb"}, "bad-characters"),
        ({"feed": ""}, "not-a-reference"),
        ({"feed": "x" * (MAX_FEED_LENGTH + 1)}, "not-a-reference"),
        ({"feed": "\x1b[31m"}, "bad-characters"),
        ({"uri": ""}, "not-a-reference"),
        ({"uri": None}, "not-a-reference"),
        ({"uri": "http://example.com/\r\nHost: other"}, "bad-characters"),
        ({"uri": "x" * (MAX_URI_LENGTH + 1)}, "not-a-reference"),
        ({"lane": "express"}, "not-a-reference"),
        ({"metadata": [1]}, "not-a-reference"),
        ({"captured_at": True}, "not-a-reference"),
        ({"metadata": {"a": "x" * MAX_METADATA_BYTES}}, "too-much-metadata"),
        ({"unknown": "x" * MAX_METADATA_BYTES}, "too-much-metadata"),
        ({"x": "x" * MAX_REFERENCE_BYTES}, "too-long"),
    ],
)
def test_a_field_out_of_bounds_is_a_dead_letter(fields: dict[str, Any], expected: str) -> None:
    frame = frame_from_record(reference(**fields))
    assert reason(frame) == expected
    assert frame.image_id == frame.origin.derived_id()


def test_names_of_the_greatest_length_are_taken() -> None:
    frame = frame_from_record(
        reference(id="é" * MAX_ID_LENGTH, feed="ö" * MAX_FEED_LENGTH, uri="x" * MAX_URI_LENGTH)
    )
    assert not frame.failed


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "empty-record"),
        (b"", "empty-record"),
        (b"hello", "not-a-record"),
        (b"\xc3\x28", "not-a-record"),
        (b'{"uri": "\xff"}', "not-a-record"),
        (b'{"uri": "a", "x": "\\ud800"}', "not-a-record"),
        (b'{"uri": "a", "x": 1e999}', "not-a-record"),
        (b"[" * 100_000, "not-a-record"),
        (b"[]", "not-a-reference"),
        (b"7", "not-a-reference"),
        (b"null", "not-a-reference"),
        (b'"https://example.com/a.jpg"', "not-a-reference"),
        (b"{}", "not-a-reference"),
    ],
)
def test_a_value_that_is_no_record_is_a_dead_letter(value: bytes | None, expected: str) -> None:
    frame = frame_from_record(record(value, feed=b"door"))
    assert reason(frame) == expected
    assert frame.feed == "door"
    assert frame.origin.value == value


def test_metadata_may_be_deep_to_a_limit() -> None:
    def nested(levels: int) -> Any:
        value: Any = 1
        for _ in range(levels):
            value = [value]
        return value

    assert not frame_from_record(reference(metadata={"a": nested(MAX_METADATA_DEPTH - 2)})).failed
    for levels in (MAX_METADATA_DEPTH, 500):
        frame = frame_from_record(reference(metadata={"a": nested(levels)}))
        assert reason(frame) == "too-deep-metadata"
    value = b'{"uri": "a", "x": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"
    assert frame_from_record(record(value)).failed


@pytest.mark.parametrize("name", ["image_id", "feed", "captured_at", "content_type"])
def test_a_header_that_is_no_text_is_a_dead_letter(name: str) -> None:
    frame = frame_from_record(record(JPEG, **{name: b"\xff\xfe"}))
    assert reason(frame) == "bad-header"
    assert frame.feed == DEFAULT_FEED


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"image_id": b"x" * (MAX_ID_LENGTH + 1)}, "too-long"),
        ({"feed": b"x" * (MAX_FEED_LENGTH + 1)}, "too-long"),
        ({"feed": b"a\0b"}, "bad-characters"),
        ({"lane": b"express"}, "bad-lane"),
        ({"captured_at": b"soon"}, "bad-captured-at"),
        ({"note": b"x" * (MAX_METADATA_BYTES + 1)}, "too-much-metadata"),
    ],
)
def test_a_header_out_of_bounds_is_a_dead_letter(headers: dict[str, bytes], expected: str) -> None:
    assert reason(frame_from_record(record(JPEG, **headers))) == expected


def test_other_headers_become_metadata_even_when_they_are_no_text() -> None:
    assert frame_from_record(record(JPEG, note=b"\xffok")).metadata == {"note": "\ufffdok"}


_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3)
    ),
    max_leaves=8,
)
_fields = st.dictionaries(
    st.sampled_from(["uri", "id", "feed", "captured_at", "lane", "metadata"]) | st.text(max_size=6),
    _json_values | st.datetimes().map(str),
    max_size=8,
)
_values = st.one_of(
    st.none(),
    st.binary(max_size=64),
    _json_values.map(lambda value: json.dumps(value).encode()),
    _fields.map(lambda fields: json.dumps({"uri": "http://a/", **fields}).encode()),
)
_headers = st.lists(
    st.tuples(
        st.sampled_from(["image-id", "feed", "captured-at", "content-type", "lane", "Feed"])
        | st.text(max_size=8),
        st.binary(max_size=16)
        | st.sampled_from([b"image/png", b"application/json", b"bulk", b"2026-01-31"]),
    ),
    max_size=5,
).map(tuple)


@settings(max_examples=400, deadline=None)
@given(
    value=_values,
    headers=_headers,
    timestamp=st.integers(-(2**63), 2**63 - 1),
    lane=st.sampled_from(Lane),
)
def test_any_record_whatsoever_becomes_a_frame_that_stores_can_hold(
    value: bytes | None, headers: tuple[tuple[str, bytes], ...], timestamp: int, lane: Lane
) -> None:
    frame = frame_from_record(Origin("images", 0, 7, timestamp, None, value, headers), lane)
    assert 0 < len(frame.image_id) <= MAX_ID_LENGTH
    assert 0 < len(frame.feed) <= MAX_FEED_LENGTH
    assert frame.image_id.isprintable()
    assert frame.feed.isprintable()
    assert 0 <= frame.event_time_ms < 9_224_318_016_000
    assert frame.lane in Lane
    assert len(json.dumps(frame.metadata)) < 20 * MAX_METADATA_BYTES
    if frame.failed:
        assert reason(frame) != "internal-error"
    else:
        assert (frame.content is None) != (frame.uri is None)


@pytest.mark.parametrize(
    "value",
    [
        b'{"uri": "https://example.org/a.jpg", "id": "cap", "feed": "gate", "captured_at": "no"}',
        b'{"id": "cap", "feed": "gate"}',
        b'{"uri": "https://example.org/a.jpg", "id": "cap", "feed": "gate", "lane": "fast"}',
    ],
)
def test_a_broken_record_keeps_the_names_that_can_be_read_in_it(value: bytes) -> None:
    frame = frame_from_record(Origin("images", 0, 7, 1_000, None, value))
    assert frame.failed
    assert (frame.image_id, frame.feed, frame.id_given) == ("cap", "gate", True)


def test_joined_emoji_and_persian_words_are_names() -> None:
    family, word = "\U0001f469\u200d\U0001f467", "\u0645\u06cc\u200c\u0631\u0648\u0645"
    value = json.dumps({"uri": "https://example.org/a.jpg", "id": family, "feed": word}).encode()
    frame = frame_from_record(Origin("images", 0, 7, 1_000, None, value))
    assert not frame.failed
    assert (frame.image_id, frame.feed) == (family, word)


def test_a_character_that_turns_text_around_is_refused_by_its_name() -> None:
    value = json.dumps({"uri": "https://example.org/a.jpg", "id": "a\u202eb"}).encode()
    frame = frame_from_record(Origin("images", 0, 7, 1_000, None, value))
    assert frame.failure is not None
    assert "U+202E" in frame.failure.detail


def test_a_byte_order_mark_before_a_reference_does_no_harm() -> None:
    value = b'\xef\xbb\xbf{"uri": "https://example.org/a.jpg", "id": "marked"}'
    assert frame_from_record(Origin("images", 0, 7, 1_000, None, value)).image_id == "marked"


@given(
    known=st.fixed_dictionaries(
        {"uri": st.text(min_size=1, max_size=20)},
        optional={
            "id": st.one_of(st.none(), st.text(max_size=20), st.integers()),
            "feed": st.one_of(st.none(), st.text(max_size=20)),
            "captured_at": st.one_of(st.none(), st.text(max_size=20), st.integers()),
            "lane": st.sampled_from(["live", "bulk", "other", None]),
            "metadata": st.dictionaries(
                st.text(max_size=5), st.recursive(st.integers(), st.lists, max_leaves=4)
            ),
        },
    )
)
def test_a_field_that_nobody_knows_changes_nothing_but_the_metadata(known: dict[str, Any]) -> None:
    plain = frame_from_record(record(json.dumps(known).encode()))
    more = frame_from_record(record(json.dumps(known | {"unheard-of": 1}).encode()))
    assert plain.failure == more.failure
    for attribute in ("image_id", "feed", "event_time_ms", "uri", "lane", "id_given"):
        assert getattr(plain, attribute) == getattr(more, attribute)
    if not plain.failed:
        assert more.metadata == {"unheard-of": 1} | plain.metadata
