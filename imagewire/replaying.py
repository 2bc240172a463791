"""Publishes dead letters again, so that images whose cause of failure is gone are made good.

A replayed record carries the original key, value and headers, how often it has failed, and the id
and time that its image was first known by; so what is found then takes the place of the failure and
nothing is doubled, however often it is replayed. A letter that a later success has made good is let
be, and one that has failed too often is refused: it would only fail again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import aiokafka.errors
from aiokafka import AIOKafkaProducer, ConsumerRecord

from imagewire.dead_letters import DeadLetters, Letter, LetterFilter, newest_of_each_image
from imagewire.dead_letters import source_records as open_source
from sinks.clickhouse.reader import ClickHouseReader
from sinks.kafka.records import DeadLetterHeader
from sinks.kafka.settings import KafkaSettings
from sinks.replay import REPLAY_HEADERS
from sinks.sink import TransientSinkError

_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_IDS_PER_QUERY = 1000
_OTHERS = frozenset({"webhook", "review"})
"""Stages at which something about an image failed and not the image: such a letter is no newer
state of its image, and there is nothing to replay."""
_SUCCESSES = """
SELECT feed, image_id, toUnixTimestamp64Milli(event_time) AS event_time,
    toUnixTimestamp64Milli(kafka_time) AS kafka_time
FROM images WHERE image_id IN {ids:Array(String)}
"""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of one letter: where its record stands now, or why it was not published."""

    letter: Letter
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """Letters to publish again, in the order in which they failed, and those that are refused.

    Attributes:
        made_good: how many matched but have succeeded since.
    """

    letters: Sequence[Letter]
    refused: Sequence[Replayed]
    made_good: int


def since_ms(text: str, now: datetime | None = None) -> int:
    """The moment that `2h` (ago; s, m, h or d) or an RFC 3339 time stands for, in milliseconds
    since the epoch. A time without offset is UTC.

    Raises:
        ValueError
    """
    if ago := _AGO.fullmatch(text):
        moment = (now or datetime.now(UTC)) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise ValueError(
                f"'{text}' is no time; write 30m, 2h, 7d or 2026-01-31T12:00:00Z"
            ) from error
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def plan_replay(
    letters: Iterable[Letter],
    wanted: LetterFilter,
    *,
    made_good: Callable[[Sequence[Letter]], set[Letter]],
    topics: Iterable[str],
    max_attempts: int,
    limit: int | None = None,
) -> ReplayPlan:
    """Choose what is published again.

    Args:
        made_good: which of some letters a later success has made good.
        topics: those that images may be published to; a letter that names another is refused, or
            whoever can write dead letters could have anything written anywhere.
        limit: most letters to publish; the oldest failures come first.
    """
    of_images = [
        letter for letter in letters if letter.stage not in _OTHERS or letter.stage in wanted.stages
    ]
    matching = [letter for letter in newest_of_each_image(of_images) if wanted.matches(letter)]
    settled = made_good(matching)
    chosen: list[Letter] = []
    refused: list[Replayed] = []
    inputs = set(topics)
    for letter in matching:
        if letter in settled:
            continue
        if letter.source[0] not in inputs:
            refused.append(
                Replayed(letter, refused=f"it came from '{letter.source[0]}', no topic of images")
            )
        elif letter.attempt >= max_attempts:
            refused.append(
                Replayed(
                    letter,
                    refused=f"it has failed {letter.attempt} times, and stream.max_attempts is "
                    f"{max_attempts}",
                )
            )
        elif limit is None or len(chosen) < limit:
            chosen.append(letter)
    return ReplayPlan(chosen, refused, len(settled))


def made_good_in(reader: ClickHouseReader, letters: Sequence[Letter]) -> set[Letter]:
    """The letters whose image has a success in ClickHouse that is as new or newer.

    The same rule as the view `failures`, asked the other way round: a failure that ClickHouse has
    not been told of yet must count as open.

    Raises:
        QueryError
    """
    ids = sorted({letter.image_id for letter in letters})
    successes: dict[str, list[dict[str, Any]]] = {}
    for begin in range(0, len(ids), _IDS_PER_QUERY):
        found = reader.query(_SUCCESSES, {"ids": ids[begin : begin + _IDS_PER_QUERY]})
        for row in found.to_pylist():
            successes.setdefault(row["image_id"], []).append(row)
    return {
        letter
        for letter in letters
        if any(
            row["feed"] == letter.feed
            and letter.captured_at_ms in (None, row["event_time"])
            and row["kafka_time"] >= letter.first_timestamp_ms
            for row in successes.get(letter.image_id, ())
        )
    }


class Replay:
    """Publishes letters again.

    Args:
        producer: started, and waiting for every replica.
    """

    def __init__(
        self, producer: AIOKafkaProducer, settings: KafkaSettings, letters: DeadLetters
    ) -> None:
        self._producer = producer
        self._settings = settings
        self._letters = letters

    async def publish(
        self, letters: Sequence[Letter], on_done: Callable[[Replayed], object]
    ) -> None:
        """Publish `letters`; `on_done` is called for each once every replica has it.

        Raises:
            TransientSinkError: the broker cannot be reached; the letters not told of stay dead
                letters as they are.
        """
        missing = set(letters)
        async with AsyncExitStack() as stack:
            record_of: Callable[[Letter], Awaitable[ConsumerRecord | None]] | None = None
            async for chunk in self._letters.read(letters):
                missing.difference_update(letter for letter, _ in chunk)
                if record_of is None and any(letter.omitted_bytes for letter, _ in chunk):
                    record_of = await stack.enter_async_context(open_source(self._settings))
                done = await asyncio.gather(
                    *(self._one(letter, record) for letter, record in chunk if record.value),
                )
                for outcome in done:
                    on_done(outcome)
                for letter, record in chunk:
                    # One at a time: these are the largest of all, and share a consumer.
                    if not record.value:
                        on_done(await self._one(letter, record, record_of))
        for letter in missing:
            on_done(Replayed(letter, refused="the dead letter has expired meanwhile"))

    async def _one(
        self,
        letter: Letter,
        record: ConsumerRecord,
        record_of: Callable[[Letter], Awaitable[ConsumerRecord | None]] | None = None,
    ) -> Replayed:
        value = record.value
        if letter.omitted_bytes is not None and record_of is not None:
            original = await record_of(letter)
            # Another key or size: the topic was deleted and made anew.
            if (
                original is None
                or original.key != record.key
                or len(original.value or b"") != letter.omitted_bytes
            ):
                topic, partition, offset = letter.source
                return Replayed(
                    letter,
                    refused=f"its value was too large for a dead letter and no longer stands at "
                    f"{topic}/{partition}/{offset}",
                )
            value = original.value
        if record.key is None and value is None:
            return Replayed(letter, refused="the record has neither key nor value")
        try:
            stored = await self._producer.send_and_wait(
                letter.source[0], value, key=record.key, headers=replay_headers(record.headers)
            )
        except aiokafka.errors.MessageSizeTooLargeError as error:
            return Replayed(
                letter,
                refused=f"the broker takes no record of this size ({error}); raise "
                "message.max.bytes there and kafka.max_record_bytes here",
            )
        except (aiokafka.errors.KafkaError, OSError) as error:
            raise TransientSinkError(
                f"the broker at {self._settings.bootstrap_servers} does not take records: {error!r}"
            ) from error
        return Replayed(letter, stored.topic, stored.partition, stored.offset)


def replay_headers(
    headers: Iterable[tuple[str, bytes | None]],
) -> list[tuple[str, bytes | None]]:
    """The producer's headers, in their order, and what makes the record a replay.

    Args:
        headers: those of the dead letter.
    """
    own = {header.value for header in DeadLetterHeader} - REPLAY_HEADERS
    return [(name, value) for name, value in headers if name not in own]
