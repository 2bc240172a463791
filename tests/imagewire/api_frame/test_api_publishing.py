"""Publishing over HTTP: what was answered with 202 is on Kafka, and what was refused is not."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable
from typing import Any

import httpx
from aiokafka import ConsumerRecord
from api_frame_stage import api_settings, asking
from topic_reading import everything_on

from operators.findings import Verdict
from operators.frame import Frame, Origin
from sinks.kafka.settings import KafkaSettings
from sinks.kafka.sink import KafkaSink
from sinks.kafka.topics import ensure_topics
from streams.records import frame_from_record

PICTURE = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 20
GATE = secrets.token_urlsafe(24)


async def records_of(kafka: dict[str, Any], topic: str) -> list[ConsumerRecord]:
    """All records of `topic` there are now."""
    options = {"bootstrap_servers": kafka["bootstrap_servers"]}
    found = await everything_on(options, topic, kafka["partitions"])
    return sorted(found, key=lambda record: (record.partition, record.offset))


def frame_of(record: ConsumerRecord) -> Frame:
    """As the worker reads it."""
    return frame_from_record(
        Origin(
            record.topic,
            record.partition,
            record.offset,
            record.timestamp,
            record.key,
            record.value,
            record.headers,
        )
    )


async def test_a_picture_answered_with_202_is_on_kafka_as_the_worker_reads_it(
    kafka: dict[str, Any],
) -> None:
    await ensure_topics(KafkaSettings(**kafka))
    async with asking(api_settings(kafka=kafka)) as client:
        answer = await client.post(
            "/v1/images",
            files={"picture": ("Café.jpg", PICTURE, "image/jpeg")},
            data={
                "id": "gate-7/1",
                "feed": "gate-7",
                "captured_at": "2026-01-31T08:15:00Z",
                "metadata": json.dumps({"shift": "früh", "floor": 3, "tags": ["a"]}),
            },
        )
        assert answer.status_code == 202, answer.text
        made = answer.json()
        [record] = await records_of(kafka, kafka["topics"]["images"])
    assert (record.topic, record.partition, record.offset) == (
        made["topic"],
        made["partition"],
        made["offset"],
    )
    frame = frame_of(record)
    assert frame.failure is None
    assert (frame.image_id, frame.feed, frame.content) == ("gate-7/1", "gate-7", PICTURE)
    assert frame.event_time_ms == 1_769_847_300_000
    assert frame.metadata == {
        "shift": "früh",
        "floor": "3",
        "tags": '["a"]',
        "file-name": "Café.jpg",
    }
    assert record.key == b"gate-7"
    assert made["findings"] is None


async def test_a_reference_keeps_what_it_carries_and_bulk_goes_where_bulk_belongs(
    kafka: dict[str, Any],
) -> None:
    await ensure_topics(KafkaSettings(**kafka))
    reference = {"uri": "https://example.org/a.jpg", "lane": "bulk", "floor": 3}
    async with asking(api_settings(kafka=kafka)) as client:
        made = (await client.post("/v1/images", json=reference)).json()
        [record] = await records_of(kafka, kafka["topics"]["bulk"])
    frame = frame_of(record)
    assert made["topic"] == kafka["topics"]["bulk"]
    # The id stands in the record: one that the producer sends twice is still one image.
    assert (frame.image_id, frame.id_given) == (made["image_id"], True)
    assert frame.metadata == {"floor": 3}


async def test_what_no_worker_would_take_is_refused_with_the_reason(kafka: dict[str, Any]) -> None:
    await ensure_topics(KafkaSettings(**kafka))
    picture = {"picture": ("a.jpg", PICTURE, "image/jpeg")}
    async with asking(api_settings(kafka=kafka)) as client:

        async def refused(status: int, request: Awaitable[httpx.Response]) -> str:
            answer = await request
            assert answer.status_code == status, answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            return str(answer.json()["detail"])

        for reference, said in (
            ({}, "uri"),
            ({"uri": ""}, "uri"),
            ({"uri": "a" * 9000}, "uri"),
            ({"uri": "https://x/", "id": "a\u202eb"}, "U+202E"),
            ({"uri": "https://x/", "feed": "f" * 200}, "feed"),
            ({"uri": "https://x/", "captured_at": "yesterday"}, "captured_at"),
            ({"uri": "https://x/", "metadata": {"a": "b" * 70_000}}, "metadata"),
            ([], "object"),
        ):
            detail = await refused(422, client.post("/v1/images", json=reference))
            assert said in detail
        for data, said in (
            ({"metadata": "[]"}, "metadata"),
            ({"metadata": '{"image-id": "other"}'}, "meaning"),
            ({"metadata": '{"imagewire-attempt": "9"}'}, "meaning"),
            ({"lane": "fast"}, "lane"),
            ({"colour": "red"}, "unknown fields"),
            ({"id": "a\x00b"}, "U+0000"),
        ):
            assert said in await refused(422, client.post("/v1/images", data=data, files=picture))
        empty = {"picture": ("a.jpg", b"", "image/jpeg")}
        assert "0 bytes" in await refused(422, client.post("/v1/images", files=empty))
        half = b'{"uri": "https://x/\\ud800"}'
        headers = {"content-type": "application/json"}
        await refused(422, client.post("/v1/images", content=half, headers=headers))
        assert await records_of(kafka, kafka["topics"]["images"]) == []


async def test_of_a_batch_all_are_published_in_order_or_none(kafka: dict[str, Any]) -> None:
    await ensure_topics(KafkaSettings(**kafka))
    good = [{"uri": f"https://example.org/{number}.jpg", "id": f"i{number}"} for number in range(9)]
    async with asking(api_settings(kafka=kafka, api={"max_batch": 10})) as client:
        wrong = await client.post("/v1/images:batch", json={"images": [*good, {"id": "x"}]})
        assert wrong.status_code == 422
        assert [each["where"] for each in wrong.json()["errors"]] == ["images.9"]
        many = await client.post("/v1/images:batch", json={"images": good * 2})
        assert many.status_code == 422
        assert await records_of(kafka, kafka["topics"]["images"]) == []
        answer = await client.post("/v1/images:batch", json={"images": good})
        assert answer.status_code == 202, answer.text
        records = await records_of(kafka, kafka["topics"]["images"])
    assert [each["image_id"] for each in answer.json()["images"]] == [each["id"] for each in good]
    assert [frame_of(record).image_id for record in records] == [each["id"] for each in good]


async def test_a_key_of_one_feed_fills_that_feed_and_replaces_nothing_of_others(
    kafka: dict[str, Any],
) -> None:
    await ensure_topics(KafkaSettings(**kafka))
    keys = [{"name": "gate", "key": GATE, "scopes": ["publish"], "feeds": ["gate"]}]
    async with asking(api_settings(kafka=kafka, api={"keys": keys}), GATE) as client:
        uri = "https://example.org/a.jpg"
        for reference in (
            {"uri": uri, "feed": "other"},
            {"uri": uri, "id": "other/1"},
            {"uri": uri, "feed": "gate", "id": "1"},
        ):
            assert (await client.post("/v1/images", json=reference)).status_code == 403
            batch = {"images": [{"uri": uri}, reference]}
            assert (await client.post("/v1/images:batch", json=batch)).status_code == 403
        own = await client.post("/v1/images", json={"uri": uri, "id": "gate/1"})
        assert own.status_code == 202
        [record] = await records_of(kafka, kafka["topics"]["images"])
    assert frame_of(record).feed == "gate"


async def test_who_waits_is_told_what_was_found_in_this_very_image_or_why_it_failed(
    kafka: dict[str, Any],
) -> None:
    settings = KafkaSettings(**kafka)
    await ensure_topics(settings)
    sink = KafkaSink(settings)
    await sink.open()

    async def work(image_id: str, failing: bool) -> None:
        """Do as a worker: an older findings record of the same id comes first."""
        old = Frame(image_id, "default", 0, Origin(settings.topics.images, 0, 999, 0))
        old.findings.scores = {"nsfw": 0.1}
        old.findings.verdict = Verdict("allow", "p@1")
        for _ in range(100):
            found = await records_of(kafka, kafka["topics"]["images"])
            mine = [frame for frame in map(frame_of, found) if frame.image_id == image_id]
            if mine:
                break
        frame = mine[-1]
        frame.findings.scores = {"nsfw": 0.9}
        frame.findings.verdict = Verdict("block", "p@1")
        if failing:
            frame.fail("fetch", "not-found", "it is not there")
        await sink.write([old])
        await sink.write([frame])

    async with asking(api_settings(kafka=kafka)) as client:
        client.timeout = httpx.Timeout(60)
        for image_id, failing in (("a", False), ("b", True)):
            reference = {"uri": "https://example.org/a.jpg", "id": image_id}
            answer, _ = await asyncio.gather(
                client.post("/v1/images?wait=40s", json=reference), work(image_id, failing)
            )
            made = answer.json()
            if failing:
                assert made["findings"] is None
                assert made["failure"]["stage"] == "fetch"
                assert made["failure"]["reason"] == "not-found"
            else:
                assert made["failure"] is None
                assert made["findings"]["scores"] == {"nsfw": 0.9}
        late = await client.post("/v1/images?wait=50ms", json={"uri": "https://example.org/c"})
        assert late.status_code == 202
        assert (late.json()["findings"], late.json()["failure"]) == (None, None)
        long = await client.post("/v1/images?wait=61s", json={"uri": "https://example.org/c"})
        assert long.status_code == 422
    await sink.close()
