"""What is promised of a stream of verdicts: each told once, tried again, and given up at last."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from shared_broker import SharedBroker
from webhook_receiver import Receiver, settings_for, status

from imagewire.dead_letters import LetterFilter
from imagewire.settings import Settings
from imagewire.webhooks import Notifier
from imagewire.webhooks_again import tell_again
from imagewire.webhooks_settings import WebhookSettings
from sinks.kafka import ensure_topics
from sinks.kafka.settings import KafkaSettings, TopicNames
from streams.metrics import Metrics
from streams.tombstones import Covers, Tombstones, nothing_erased, tombstone_record

pytestmark = pytest.mark.timeout(180)


class Stream:
    """A topic of verdicts, and what became of those that were given up."""

    def __init__(self, kafka: KafkaSettings, group: str) -> None:
        self.kafka = kafka
        self.group = group

    async def publish(self, *verdicts: dict[str, Any]) -> None:
        producer = AIOKafkaProducer(**self.kafka.producer_options())
        await producer.start()
        for verdict in verdicts:
            await producer.send_and_wait(
                self.kafka.topics.verdicts,
                json.dumps({"feed": "gate", "action": "block"} | verdict).encode(),
                key=verdict["image_id"].encode(),
            )
        await producer.stop()

    async def letters(self, count: int) -> list[Any]:
        consumer = AIOKafkaConsumer(
            self.kafka.topics.failed, auto_offset_reset="earliest", **self.kafka.client_options()
        )
        await consumer.start()
        found: list[Any] = []
        async with asyncio.timeout(60):
            while len(found) < count:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += records
        await consumer.stop()
        return found

    @asynccontextmanager
    async def notifying(
        self, settings: WebhookSettings, forgotten: Covers = nothing_erased
    ) -> AsyncIterator[Notifier]:
        notifier = Notifier(
            settings, self.kafka, self.group, Metrics(), forgotten=forgotten, first_pause=0.05
        )
        task = asyncio.create_task(notifier.run())
        try:
            async with asyncio.timeout(60):
                while not notifier.began:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            yield notifier
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
async def stream(apache_kafka: SharedBroker, unique: Callable[[str], str]) -> Stream:
    names = {topic: unique(topic) for topic in TopicNames.model_fields}
    kafka = KafkaSettings(
        bootstrap_servers=apache_kafka.address, topics=TopicNames(**names), partitions=1
    )
    await ensure_topics(kafka)
    return Stream(kafka, unique("group"))


async def test_chosen_verdicts_are_told_once_and_a_restart_goes_on(
    receiver: Receiver, stream: Stream
) -> None:
    settings = settings_for(receiver, actions=["block"], feeds=["gate"])
    await stream.publish({"image_id": "before"})
    async with stream.notifying(settings):
        await stream.publish(
            {"image_id": "allowed", "action": "allow"},
            {"image_id": "other", "feed": "door"},
            {"image_id": "one"},
        )
        await receiver.until(1)
    await stream.publish({"image_id": "two"})  # while nobody looks
    async with stream.notifying(settings):
        await receiver.until(2)
        await asyncio.sleep(0.5)
    told = [json.loads(body) for _, body in receiver.got]
    assert [each["data"]["image_id"] for each in told] == ["one", "two"]
    assert {each["type"] for each in told} == {"image.verdict"}
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 2


async def test_one_message_that_fails_holds_up_no_other_and_keeps_its_id(
    receiver: Receiver, stream: Stream
) -> None:
    async def not_the_first(request: web.Request) -> web.StreamResponse:
        tries = sum(b'"one"' in body for _, body in receiver.got)
        bad = b'"one"' in receiver.got[-1][1] and tries < 4
        return web.Response(status=500 if bad else 200)

    receiver.answer = not_the_first
    async with stream.notifying(settings_for(receiver)):
        await stream.publish({"image_id": "one"}, {"image_id": "two"})
        await receiver.until(5)
    ids = [headers["webhook-id"] for headers, body in receiver.got if b'"one"' in body]
    assert len(ids) == 4
    assert len(set(ids)) == 1


async def test_nobody_is_told_of_what_was_erased_meanwhile(
    receiver: Receiver, stream: Stream
) -> None:
    receiver.answer = status(500)
    erased = Tombstones()
    async with stream.notifying(settings_for(receiver), erased.covers):
        await stream.publish(
            {"image_id": "one", "feed": "gate"},
            {"image_id": "two", "feed": "door", "content_id": "ab" * 32},
            {"image_id": "three", "feed": "door"},
        )
        await receiver.until(6)
        now = time.time_ns() // 1_000_000
        erased.apply(*tombstone_record("feed", "gate", now))
        erased.apply(*tombstone_record("content", "ab" * 32, now))
        receiver.answer = receiver.ok
        del receiver.got[:]
        await receiver.until(1)
        await asyncio.sleep(0.5)
    assert {json.loads(body)["data"]["image_id"] for _, body in receiver.got} == {"three"}


async def test_a_message_that_is_too_old_becomes_a_dead_letter_without_a_secret(
    receiver: Receiver, stream: Stream
) -> None:
    receiver.answer = status(500)
    async with stream.notifying(settings_for(receiver, max_age=0.3)):
        await stream.publish({"image_id": "one"})
        [letter] = await stream.letters(1)
        receiver.answer = receiver.ok
        await stream.publish({"image_id": "two"})
        async with asyncio.timeout(30):
            while b'"two"' not in receiver.got[-1][1]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    headers = {name: value.decode() for name, value in letter.headers}
    assert headers["imagewire-stage"] == "webhook"
    assert headers["imagewire-reason"] == "gave-up"
    assert headers["imagewire-image-id"] == "one"
    assert "'trust'" in headers["imagewire-detail"]
    assert "geheim" not in str(headers)
    assert json.loads(letter.value)["image_id"] == "one"

    first, *_ = receiver.got
    del receiver.got[:]
    settings = Settings(kafka=stream.kafka, webhooks=(settings_for(receiver),))
    assert [each.outcome for each in await tell_again(settings, LetterFilter(), dry_run=True)] == [
        None
    ]
    assert receiver.got == []
    assert await tell_again(settings, LetterFilter(), ["another"]) == []
    [told] = await tell_again(settings, LetterFilter())
    assert (told.webhook, told.outcome) == ("trust", "delivered")
    [again] = receiver.got
    assert (again[0]["webhook-id"], again[1]) == (first[0]["webhook-id"], first[1])
    producer = AIOKafkaProducer(**stream.kafka.producer_options())
    await producer.start()
    key, value = tombstone_record("image", "one", 0)
    await producer.send_and_wait(stream.kafka.topics.forgotten, value, key=key)
    await producer.stop()
    assert [each.outcome for each in await tell_again(settings, LetterFilter())] == ["forgotten"]
    assert len(receiver.got) == 1
