"""The stream of verdicts: nothing left out and nothing twice, however often it is cut."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from api_frame_stage import api_settings, serving

import imagewire.api.verdict_feed as feed_module
from imagewire.api.routes import verdicts as route
from imagewire.api.verdict_feed import BadPositionError, progress_of
from sinks.kafka.settings import KafkaSettings
from sinks.kafka.topics import ensure_topics


@dataclass
class Event:
    id: str
    kind: str
    data: dict[str, Any] | None


@asynccontextmanager
async def events_of(
    client: httpx.AsyncClient, last: str | None = None, **params: str
) -> AsyncIterator[AsyncIterator[Event]]:
    headers = {"Last-Event-ID": last} if last is not None else {}
    async with client.stream("GET", "/v1/verdicts/stream", headers=headers, params=params) as come:
        assert come.status_code == 200, await come.aread()
        assert come.headers["content-type"].startswith("text/event-stream")
        yield _parsed(come)


async def _parsed(answer: httpx.Response) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name or "comment"] = value
            continue
        data = json.loads(fields["data"]) if "data" in fields else None
        yield Event(fields.get("id", ""), fields.get("event", "comment"), data)
        fields = {}


async def take(events: AsyncIterator[Event], count: int) -> list[Event]:
    """The next `count` events that carry something."""
    found: list[Event] = []
    async with asyncio.timeout(60):
        async for event in events:
            if event.data is not None:
                found.append(event)
                if len(found) == count:
                    break
    return found


class Verdicts:
    """Publishes verdicts as a worker does."""

    def __init__(self, settings: KafkaSettings, producer: AIOKafkaProducer) -> None:
        self._topic = settings.topics.verdicts
        self._producer = producer
        self.published = 0

    async def publish(self, count: int) -> None:
        for _ in range(count):
            number = self.published
            self.published += 1
            record = {
                "image_id": f"i{number}",
                "feed": "odd" if number % 2 else "even",
                "action": "block" if number % 4 == 0 else "allow",
            }
            value = json.dumps(record).encode()
            await self._producer.send_and_wait(self._topic, value, partition=number % 2)


@asynccontextmanager
async def verdicts_on(kafka: dict[str, Any]) -> AsyncIterator[Verdicts]:
    settings = KafkaSettings(**kafka)
    await ensure_topics(settings)
    producer = AIOKafkaProducer(**settings.producer_options())
    await producer.start()
    try:
        yield Verdicts(settings, producer)
    finally:
        await producer.stop()


def numbers(events: list[Event]) -> list[int]:
    return [int(event.data["image_id"][1:]) for event in events if event.data]


async def test_a_reader_who_is_cut_off_again_and_again_gets_every_verdict_once(
    kafka: dict[str, Any],
) -> None:
    async with (
        verdicts_on(kafka) as verdicts,
        serving(api_settings(kafka=kafka)) as (client, _),
    ):
        await verdicts.publish(5)  # before anybody reads: not part of the stream
        async with events_of(client) as events:
            hello = await anext(events)
            assert hello.kind == "comment"
        last, seen = hello.id, []
        for count in (1, 7, 2, 4):
            await verdicts.publish(4)  # while the reader is away
            async with events_of(client, last) as events:
                writing = asyncio.create_task(verdicts.publish(3))
                found = await take(events, count)
                await writing
            seen += numbers(found)
            last = found[-1].id
        async with events_of(client, last) as events:
            seen += numbers(await take(events, verdicts.published - 5 - len(seen)))
        assert sorted(seen) == list(range(5, verdicts.published))


async def test_filters_leave_out_and_the_id_moves_on_all_the_same(
    kafka: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "HEARTBEAT_SECONDS", 0.3)
    async with (
        verdicts_on(kafka) as verdicts,
        serving(api_settings(kafka=kafka)) as (client, _),
        events_of(client, feed="even", verdict="block") as events,
    ):
        begin = (await anext(events)).id
        await verdicts.publish(6)
        assert numbers(await take(events, 2)) == [0, 4]
        async with asyncio.timeout(30):
            async for event in events:
                if event.kind == "comment" and sum(progress_of(event.id).values()) == 6:
                    break
        assert sum(progress_of(begin).values()) == 0


async def test_a_key_of_one_feed_sees_no_verdict_of_another(kafka: dict[str, Any]) -> None:
    key = "k" * 30
    keys = [{"name": "gate", "key": key, "scopes": ["read"], "feeds": ["odd"]}]
    async with (
        verdicts_on(kafka) as verdicts,
        serving(api_settings(kafka=kafka, api={"keys": keys})) as (client, _),
    ):
        client.headers["Authorization"] = f"Bearer {key}"
        async with events_of(client) as events:
            hello = await anext(events)
            await verdicts.publish(4)
            assert numbers(await take(events, 2)) == [1, 3]
        async with events_of(client, hello.id) as events:
            assert numbers(await take(events, 2)) == [1, 3]
        refused = await client.get("/v1/verdicts/stream", params={"feed": "even"})
        assert refused.status_code == 403


async def test_a_slow_reader_is_sent_away_and_finds_everything_when_back(
    kafka: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_KEPT", 3)
    async with (
        verdicts_on(kafka) as verdicts,
        serving(api_settings(kafka=kafka)) as (_, services),
    ):
        reader = await services.verdicts.join(None)
        start = dict(reader.progress)
        await verdicts.publish(9)
        async with asyncio.timeout(60):
            while sum(services.verdicts.positions().values()) < 9:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.05)
        with pytest.raises(feed_module.TooSlowError):
            await reader.next(20)
        services.verdicts.leave(reader)
        again = await services.verdicts.join(start)
        told = [each async for each in again.missed()]
        services.verdicts.leave(again)
    assert len(told) == 9


async def test_who_takes_what_was_missed_slowly_keeps_nobody_from_it(
    kafka: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_PIECE_BYTES", 100)
    async with (
        verdicts_on(kafka) as verdicts,
        serving(api_settings(kafka=kafka)) as (_, services),
    ):
        await verdicts.publish(9)
        slow = []
        for _ in range(feed_module._CATCHING_UP):
            reader = await services.verdicts.join({0: 0})
            missed = reader.missed()
            assert await anext(missed)
            slow.append(missed)
        async with asyncio.timeout(60):
            quick = await services.verdicts.join({})
            told = [each async for each in quick.missed()]
            assert sorted((each.partition, each.offset) for each in told) == [  # type: ignore[union-attr]
                (number % 2, number // 2) for number in sorted(range(9), key=lambda n: (n % 2, n))
            ]
            assert len([each async for each in slow[0]]) == 8
        assert quick.progress == services.verdicts.positions()


async def test_an_id_beyond_the_log_is_that_of_an_earlier_one_and_all_of_this_one_is_new(
    kafka: dict[str, Any],
) -> None:
    async with (
        verdicts_on(kafka) as verdicts,
        serving(api_settings(kafka=kafka)) as (client, services),
    ):
        await verdicts.publish(4)
        async with events_of(client, "0:70000,1:1") as events:
            assert sorted(numbers(await take(events, 3))) == [0, 2, 3]
        # One that another process of the API gave, which was told of more than this one yet.
        place = next(each for each in services.verdicts._tail.positions if each.partition == 0)
        services.verdicts._tail.positions[place] -= 1
        joining = asyncio.create_task(services.verdicts.join({0: 2, 1: 2}))
        await asyncio.sleep(0.3)
        assert not joining.done()
        services.verdicts._tail.positions[place] += 1
        assert (await joining).progress == {0: 2, 1: 2}


async def test_there_are_only_so_many_readers_and_a_wrong_id_is_told(
    kafka: dict[str, Any],
) -> None:
    async with (
        verdicts_on(kafka),
        serving(api_settings(kafka=kafka, api={"max_streams": 1})) as (client, _),
    ):
        async with events_of(client) as events:
            await anext(events)
            busy = await client.get("/v1/verdicts/stream")
            assert busy.status_code == 503
            assert busy.headers["retry-after"]
        async with contextlib.AsyncExitStack() as stack:  # at once, and before any could join
            many = [
                asyncio.create_task(
                    stack.enter_async_context(client.stream("GET", "/v1/verdicts/stream"))
                )
                for _ in range(5)
            ]
            statuses = [(await each).status_code for each in many]
            assert sorted(statuses) == [200, *[503] * 4]
        for wrong in ("x", "0:", "1:2,", "0:-1", "9" * 30 + ":1"):
            answer = await client.get("/v1/verdicts/stream", headers={"Last-Event-ID": wrong})
            assert answer.status_code == 422, wrong
            assert answer.json()["errors"][0]["where"] == "header.last-event-id"


def test_ids_of_events_are_read_back_and_anything_else_is_refused() -> None:
    assert progress_of("0:42,17:0") == {0: 42, 17: 0}
    for wrong in ("", "0:42,", "0:٣", "0:42\n", "a:1", "0:" + "1" * 19):
        with pytest.raises(BadPositionError):
            progress_of(wrong)
