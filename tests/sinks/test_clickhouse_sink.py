"""What the ClickHouse tables promise, through the embedded engine's HTTP front."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from operators.findings import (
    Detection,
    Findings,
    Fingerprint,
    ImageInfo,
    RuleHit,
    TextLine,
    Verdict,
)
from operators.frame import Frame, Origin
from sinks.clickhouse.reader import ClickHouseReader
from sinks.clickhouse.settings import ClickHouseSettings
from sinks.clickhouse.sink import ClickHouseSink
from sinks.sink import PermanentSinkError, TransientSinkError

T0 = 1_790_000_000_000
HOUR = 3_600_000


@pytest.fixture
def settings(clickhouse_front: Any) -> ClickHouseSettings:
    return ClickHouseSettings(
        host=clickhouse_front.host,
        port=clickhouse_front.port,
        username="writer",
        password=clickhouse_front.writer_password,
        database=f"sink_{secrets.token_hex(5)}",
    )


@pytest.fixture
async def sink(settings: ClickHouseSettings) -> Any:
    sink = ClickHouseSink(settings)
    await sink.open()
    yield sink
    await sink.close()


@pytest.fixture
def reader(settings: ClickHouseSettings) -> Iterator[ClickHouseReader]:
    with ClickHouseReader(settings) as reader:
        yield reader


def rows(reader: ClickHouseReader, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in reader.query(sql).to_pylist()]


def one(reader: ClickHouseReader, sql: str) -> Any:
    return rows(reader, sql)[0][0]


def frame(number: int = 0, /, **fields: Any) -> Frame:
    """A frame as it comes out of the operators; `at` is its Kafka timestamp."""
    at = fields.pop("at", T0 + number)
    offset = fields.pop("offset", number)
    values: dict[str, Any] = {
        "image_id": f"photo-{number}",
        "feed": "door",
        "event_time_ms": at,
        "origin": Origin("images", 0, offset, at),
        "id_given": True,
        "findings": findings(),
    }
    return Frame(**(values | fields))


def findings(boxes: int = 2, **fields: Any) -> Findings:
    values: dict[str, Any] = {
        "image": ImageInfo(640, 480, "jpeg", 12_345),
        "fingerprint": Fingerprint("ab" * 32, "cd" * 32, 87),
        "objects": [Detection("face", 0.75, (1.5, 2.5, 30, 40 + n)) for n in range(boxes)],
        "texts": [TextLine("EXIT", 0.5, ((0, 0), (9, 0), (9, 5), (0, 5)))],
        "scores": {"nsfw": 0.25},
        "models": {"objects": "nudenet-320n@3.4"},
        "verdict": Verdict("review", "policy-7", [RuleHit("faces", "review", "a face was seen")]),
    }
    return Findings(**(values | fields))


def failed(number: int = 0, /, **fields: Any) -> Frame:
    broken = frame(number, **fields)
    broken.fail("fetch", "http-status", "the server answered 404; check the address")
    return broken


async def write(sink: ClickHouseSink, frames: Sequence[Frame], size: int) -> None:
    for begin in range(0, len(frames), size):
        await sink.write(frames[begin : begin + size])


EVERYTHING = {
    view: f"SELECT * EXCEPT (ingested_at, latency_ms) FROM {view} ORDER BY ALL"
    for view in ("images", "failures")
} | {
    view: f"SELECT * FROM {view} ORDER BY ALL"
    for view in ("detections", "texts", "scores", "rules_fired", "counts_hourly", "verdicts_hourly")
}


def snapshot(reader: ClickHouseReader) -> dict[str, Any]:
    return {view: rows(reader, sql) for view, sql in EVERYTHING.items()}


async def test_a_replay_in_other_batches_leaves_every_view_as_it_was(
    sink: ClickHouseSink, reader: ClickHouseReader
) -> None:
    frames = [failed(n) if n % 10 == 0 else frame(n, at=T0 + n * HOUR // 4) for n in range(60)]
    await write(sink, frames, 20)
    before = snapshot(reader)
    await write(sink, frames, 20)
    assert snapshot(reader) == before
    await write(sink, frames[5:], 7)
    assert snapshot(reader) == before
    assert len(before["images"]) == 54
    assert len(before["failures"]) == 6
    assert len(before["detections"]) == 108


async def test_a_second_look_that_sees_less_leaves_no_stale_boxes(
    sink: ClickHouseSink, reader: ClickHouseReader
) -> None:
    await sink.write([frame(findings=findings(boxes=5))])
    assert one(reader, "SELECT count() FROM detections") == 5
    await sink.write([frame(findings=findings(boxes=1, texts=[]))])
    assert one(reader, "SELECT count() FROM detections") == 1
    assert one(reader, "SELECT count() FROM texts") == 0
    assert one(reader, "SELECT sum(objects) FROM counts_hourly") == 1


async def test_an_id_published_again_later_stays_one_row_with_its_first_event_time(
    sink: ClickHouseSink, reader: ClickHouseReader
) -> None:
    await sink.write([frame(n) for n in range(3)])
    again = [frame(n, at=T0 + 40 * 24 * HOUR + n, offset=100 + n) for n in range(3)]
    again[0].findings = findings(boxes=0)
    await sink.write(again)
    assert one(reader, "SELECT count() FROM images") == 3
    found = rows(
        reader,
        "SELECT toUnixTimestamp64Milli(event_time), kafka_offset, length(labels) FROM images "
        "ORDER BY image_id",
    )
    assert found == [(T0, 100, 0), (T0 + 1, 101, 1), (T0 + 2, 102, 1)]


async def test_an_id_that_comes_twice_in_one_batch_is_one_row(
    sink: ClickHouseSink, reader: ClickHouseReader
) -> None:
    await sink.write([frame(at=T0 + 5, offset=1), frame(at=T0, offset=0)])
    assert rows(reader, "SELECT toUnixTimestamp64Milli(event_time), kafka_offset FROM images") == [
        (T0, 1)
    ]


async def test_the_same_id_in_two_feeds_is_two_images(
    sink: ClickHouseSink, reader: ClickHouseReader
) -> None:
    await sink.write([frame(feed="door"), frame(feed="gate", at=T0 + 9)])
    await sink.write([frame(feed="gate", at=T0 + 99)])
    assert rows(
        reader, "SELECT feed, toUnixTimestamp64Milli(event_time) FROM images ORDER BY feed"
    ) == [("door", T0), ("gate", T0 + 9)]


async def test_a_late_replay_of_an_older_record_does_not_undo_a_newer_one(
    sink: ClickHouseSink, reader: ClickHouseReader
) -> None:
    older, newer = frame(offset=1), frame(offset=2, at=T0 + 1000)
    for each in (older, newer, older):
        await sink.write([each])
    assert one(reader, "SELECT kafka_offset FROM images") == 2


async def test_a_capture_time_of_the_producer_is_the_event_time(
    sink: ClickHouseSink, reader: ClickHouseReader
) -> None:
    old = frame(event_time_ms=1_000_000_000_000, captured_at_given=True)
    await sink.write([old])
    assert str(rows(reader, "SELECT event_time FROM images")[0][0]) == "2001-09-09 01:46:40+00:00"


async def test_an_archive_of_many_years_goes_in_at_once_and_stays(
    sink: ClickHouseSink, reader: ClickHouseReader
) -> None:
    month = 31 * 24 * HOUR
    frames = [frame(n, event_time_ms=n * month, captured_at_given=True) for n in range(150)]
    await sink.write(frames)
    assert one(reader, "SELECT count() FROM images") == 150


async def test_clocks_that_say_anything_do_not_stop_a_batch(
    sink: ClickHouseSink, reader: ClickHouseReader
) -> None:
    times = [-(10**15), 10**16, -1, 0]
    frames = [frame(n, event_time_ms=at, captured_at_given=True) for n, at in enumerate(times)]
    frames += [failed(9, event_time_ms=10**16, captured_at_given=True), frame(8, at=-1)]
    await sink.write(frames)
    years = rows(reader, "SELECT toYear(event_time) FROM images ORDER BY event_time")
    assert years == [(1900,), (1969,), (1969,), (1970,), (2299,)]
    assert one(reader, "SELECT count() FROM failures") == 1


async def test_half_a_character_in_a_file_name_does_not_stop_a_dead_letter(
    sink: ClickHouseSink, reader: ClickHouseReader
) -> None:
    broken = frame(uri="file:///photos/caf\udce9.jpg")
    broken.fail("fetch", "not-found", "there is no caf\udce9.jpg")
    await sink.write([broken])
    assert rows(reader, "SELECT uri, detail FROM failures") == [
        ("file:///photos/caf\\udce9.jpg", "there is no caf\\udce9.jpg")
    ]


async def test_a_failure_is_open_until_its_image_succeeds(
    sink: ClickHouseSink, reader: ClickHouseReader
) -> None:
    await sink.write([failed(), failed(1)])
    assert one(reader, "SELECT count() FROM failures") == 2
    await sink.write([frame(at=T0 + 60_000, offset=7)])
    assert rows(reader, "SELECT image_id, stage, reason FROM failures") == [
        ("photo-1", "fetch", "http-status")
    ]
    assert one(reader, "SELECT count() FROM images") == 1
    await sink.write([failed(), failed(1)])
    assert one(reader, "SELECT count() FROM failures") == 1


async def test_a_delivery_again_that_succeeds_closes_the_failure_of_the_same_record(
    sink: ClickHouseSink, reader: ClickHouseReader
) -> None:
    await sink.write([failed()])
    await sink.write([frame()])
    assert one(reader, "SELECT count() FROM failures") == 0


async def test_a_failure_after_a_success_is_open_and_keeps_what_was_seen(
    sink: ClickHouseSink, reader: ClickHouseReader
) -> None:
    await sink.write([frame()])
    await sink.write([failed(at=T0 + 60_000, offset=7)])
    assert rows(reader, "SELECT image_id, kafka_offset FROM failures") == [("photo-0", 7)]
    assert one(reader, "SELECT count() FROM detections") == 2
    await sink.write([frame(at=T0 + 120_000, offset=8)])
    assert one(reader, "SELECT count() FROM failures") == 0


async def test_a_failure_says_where_it_came_from_and_how_often_it_was_tried(
    sink: ClickHouseSink, reader: ClickHouseReader
) -> None:
    broken = failed(uri="https://example.org/a.jpg", metadata={"shop": 7})
    broken.origin = replace(
        broken.origin, key=b"door\xff", headers=(("imagewire-attempt", b"3"), ("x", b""))
    )
    await sink.write([broken])
    assert rows(
        reader,
        "SELECT detail, attempt, topic, kafka_partition, kafka_offset, kafka_key, uri, metadata "
        "FROM failures",
    ) == [
        (
            "the server answered 404; check the address",
            4, "images", 0, 0, "door\ufffd", "https://example.org/a.jpg", '{"shop":7}',
        )
    ]  # fmt: skip


NASTY = [
    'it\'s "quoted" \\ `x`',
    "line\n\n\nSELECT 1;\n\tend\r\n",
    "é 😀 ﷽",
    "nul\0nul",
    "",
    "$$",
    "?",
]


async def test_any_text_comes_back_as_it_was_written(
    sink: ClickHouseSink, reader: ClickHouseReader
) -> None:
    quad = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    frames = [
        frame(
            number,
            image_id=f"id-{text}",
            feed=f"feed-{text}",
            uri=text,
            metadata={"text": text},
            findings=findings(
                texts=[TextLine(text, 1.0, quad)],
                extra={"shop": {"text": text}},
                verdict=Verdict("block", "p", [RuleHit(text, "block", text)]),
            ),
        )
        for number, text in enumerate(NASTY)
    ]
    await sink.write(frames)
    await sink.write(frames)
    found = rows(
        reader,
        "SELECT image_id, feed, uri, text, metadata, extra FROM images ORDER BY kafka_offset",
    )
    assert [row[:4] for row in found] == [(f"id-{t}", f"feed-{t}", t, t) for t in NASTY]
    assert [json.loads(row[4])["text"] for row in found] == NASTY
    assert [json.loads(row[5])["shop"]["text"] for row in found] == NASTY
    ids = [f"id-{text}" for text in NASTY]
    assert [row["image_id"] for row in reader.images_by_id(ids)] == ids


async def test_the_views_show_what_was_found(
    sink: ClickHouseSink, reader: ClickHouseReader
) -> None:
    await sink.write([frame(), frame(1, findings=Findings(), at=T0 + HOUR)])
    assert rows(
        reader,
        "SELECT object_index, label, score, x1, y1, x2, y2, width, height, verdict, model "
        "FROM detections ORDER BY object_index",
    ) == [
        (1, "face", 0.75, 1.5, 2.5, 30.0, 40.0, 640, 480, "review", "nudenet-320n@3.4"),
        (2, "face", 0.75, 1.5, 2.5, 30.0, 41.0, 640, 480, "review", "nudenet-320n@3.4"),
    ]
    assert rows(reader, "SELECT line_index, text, score, quad FROM texts") == [
        (1, "EXIT", 0.5, [0, 0, 9, 0, 9, 5, 0, 5])
    ]
    assert rows(reader, "SELECT name, score FROM scores") == [("nsfw", 0.25)]
    assert rows(reader, "SELECT verdict, policy, rules, explanations FROM verdicts") == [
        ("review", "policy-7", ["faces"], ["a face was seen"])
    ]
    assert rows(reader, "SELECT rule, action, explanation, verdict FROM rules_fired") == [
        ("faces", "review", "a face was seen", "review")
    ]
    assert rows(
        reader,
        "SELECT content_id, pdq, pdq_quality, format, bytes, labels, verdict FROM images "
        "ORDER BY event_time",
    ) == [
        ("ab" * 32, "cd" * 32, 87, "jpeg", 12_345, ["face"], "review"),
        ("", "", 0, "", 0, [], "none"),
    ]


async def test_hourly_numbers_count_images_once(
    sink: ClickHouseSink, reader: ClickHouseReader
) -> None:
    start = T0 // HOUR * HOUR
    frames = [frame(n, at=start + n * HOUR // 10, captured_at_given=True) for n in range(15)]
    await write(sink, frames, 4)
    await write(sink, frames, 6)
    assert rows(reader, "SELECT feed, label, images, objects FROM counts_hourly ORDER BY hour") == [
        ("door", "face", 10, 20),
        ("door", "face", 5, 10),
    ]
    assert rows(reader, "SELECT verdict, images FROM verdicts_hourly ORDER BY hour") == [
        ("review", 10),
        ("review", 5),
    ]
    latencies = rows(reader, "SELECT images, p50_ms <= p90_ms, p90_ms <= p99_ms, p99_ms <= max_ms "
                             "FROM latency_hourly ORDER BY hour")  # fmt: skip
    assert latencies == [(10, True, True, True), (5, True, True, True)]


async def test_a_value_that_fits_no_column_is_a_permanent_error_and_writes_nothing(
    sink: ClickHouseSink, reader: ClickHouseReader
) -> None:
    bad = frame(findings=findings(image=ImageInfo(-1, 480, "jpeg", 1)))
    with pytest.raises(PermanentSinkError):
        await sink.write([frame(1), bad])
    assert one(reader, "SELECT count() FROM images") == 0
    await sink.write([frame(1)])
    assert one(reader, "SELECT count() FROM images") == 1


async def test_a_server_that_cannot_be_reached_is_a_transient_error() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        sink = ClickHouseSink(ClickHouseSettings(port=port, connect_timeout=1))
        with pytest.raises(TransientSinkError, match=rf"127\.0\.0\.1:{port}"):
            await sink.open()
        await sink.close()


async def test_a_wrong_password_is_a_permanent_error_that_does_not_show_it(
    settings: ClickHouseSettings,
) -> None:
    wrong = ClickHouseSettings(
        **settings.model_dump(exclude={"password"}), password="not-the-password"
    )
    sink = ClickHouseSink(wrong)
    with pytest.raises(PermanentSinkError, match="Authentication failed") as caught:
        await sink.open()
    assert "not-the-password" not in str(caught.value)
    await sink.close()


async def test_an_empty_batch_is_nothing_to_do(sink: ClickHouseSink) -> None:
    await sink.write([])


async def test_closing_twice_does_no_harm(settings: ClickHouseSettings) -> None:
    sink = ClickHouseSink(settings)
    await sink.open()
    await sink.close()
    await sink.close()
