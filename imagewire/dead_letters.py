"""The dead letters on Kafka: one look over the whole topic, and the records of a chosen few.

Letters hold whole images, so the first look keeps only what their headers say, and the second reads
the chosen ones again, a few at a time. The topic is read up to the end that it had at the start, so
that letters which a replay itself causes are not taken up by it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiokafka.errors
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from operators.frame import Origin
from sinks.kafka.reachable import connection_error
from sinks.kafka.reading import read_up_to
from sinks.kafka.records import DeadLetterHeader
from sinks.kafka.settings import KafkaSettings
from sinks.sink import TransientSinkError
from streams.records import frame_from_record

_TOPIC_WITHIN_SECONDS = 20.0
_ONE_RECORD_SECONDS = 10.0
_LAST_MS = 253_402_300_799_000
"""The end of the year 9999, the last that Python can show."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter without its value.

    Attributes:
        partition, offset: where it stands on the topic of dead letters.
        failed_at_ms: when it was written there; milliseconds since the epoch.
        attempt: how often the image has failed, this time included.
        source: topic, partition and offset of the record that failed.
        first_timestamp_ms: the Kafka timestamp of the image's first record.
        captured_at_ms: the event time, where the producer gave it.
        omitted_bytes: size of the value, where it was too large to stand in the letter.
    """

    partition: int
    offset: int
    failed_at_ms: int
    image_id: str
    feed: str
    stage: str
    reason: str
    detail: str
    attempt: int
    source: tuple[str, int, int]
    first_timestamp_ms: int
    captured_at_ms: int | None
    omitted_bytes: int | None

    @property
    def image(self) -> tuple[str, str, int | None]:
        """What the stores know the image by."""
        return self.feed, self.image_id, self.captured_at_ms

    @property
    def age(self) -> tuple[int, int, int, int]:
        """Grows from an image's older letters to its newer ones."""
        return self.first_timestamp_ms, self.attempt, self.failed_at_ms, self.offset


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which letters are meant; an empty collection means any."""

    stages: Collection[str] = ()
    reasons: Collection[str] = ()
    image_ids: Collection[str] = ()
    feeds: Collection[str] = ()
    since_ms: int | None = None

    def matches(self, letter: Letter) -> bool:
        return (
            (not self.stages or letter.stage in self.stages)
            and (not self.reasons or letter.reason in self.reasons)
            and (not self.image_ids or letter.image_id in self.image_ids)
            and (not self.feeds or letter.feed in self.feeds)
            and (self.since_ms is None or letter.failed_at_ms >= self.since_ms)
        )


def newest_of_each_image(letters: Iterable[Letter]) -> list[Letter]:
    """One letter for each image, its newest, in the order in which they failed."""
    newest: dict[tuple[str, str, int | None], Letter] = {}
    for letter in letters:
        known = newest.get(letter.image)
        if known is None or letter.age > known.age:
            newest[letter.image] = letter
    return sorted(newest.values(), key=lambda letter: (letter.failed_at_ms, letter.offset))


class DeadLetters:
    """Reads the topic of dead letters. Open with `dead_letters`.

    Attributes:
        strange: how many records of the topic are no dead letters of Imagewire's.
    """

    def __init__(self, consumer: AIOKafkaConsumer, settings: KafkaSettings) -> None:
        self._consumer = consumer
        self._settings = settings
        self.strange = 0

    async def scan(self, on_read: Callable[[int], object] = lambda count: None) -> list[Letter]:
        """Every dead letter that the topic holds now.

        Args:
            on_read: told after each step how many more records were read.

        Raises:
            TransientSinkError: the broker stopped answering.
        """
        found: list[Letter] = []
        partitions = await self._assigned()
        ends: dict[TopicPartition, int] = {}
        async for tp, records in self._batches(partitions, ends):
            on_read(len(records))
            for record in records:
                if record.offset >= ends[tp]:
                    continue
                letter = _letter(record)
                if letter is None:
                    self.strange += 1
                else:
                    found.append(letter)
        return found

    async def read(
        self, letters: Iterable[Letter]
    ) -> AsyncIterator[list[tuple[Letter, ConsumerRecord]]]:
        """The records of `letters`, some at a time. Letters that have expired are left out.

        Raises:
            TransientSinkError: the broker stopped answering.
        """
        wanted: dict[TopicPartition, dict[int, Letter]] = {}
        for letter in letters:
            tp = TopicPartition(self._settings.topics.failed, letter.partition)
            wanted.setdefault(tp, {})[letter.offset] = letter
        for tp, by_offset in wanted.items():
            self._consumer.seek(tp, min(by_offset))
        ends = {tp: max(by_offset) + 1 for tp, by_offset in wanted.items()}
        async for tp, records in self._batches(list(wanted), ends):
            chosen = [
                (wanted[tp][record.offset], record)
                for record in records
                if record.offset in wanted[tp]
            ]
            if chosen:
                yield chosen

    async def _assigned(self) -> list[TopicPartition]:
        topic = self._settings.topics.failed
        deadline = time.monotonic() + _TOPIC_WITHIN_SECONDS
        while not (partitions := self._consumer.assignment()):
            if time.monotonic() > deadline:
                raise TransientSinkError(
                    f"the broker at {self._settings.bootstrap_servers} knows no topic '{topic}'; "
                    "a worker makes it at its first start"
                )
            await asyncio.sleep(0.05)
        return sorted(partitions)

    def _batches(
        self, partitions: list[TopicPartition], ends: dict[TopicPartition, int]
    ) -> AsyncIterator[tuple[TopicPartition, list[ConsumerRecord]]]:
        broker = self._settings.bootstrap_servers
        return read_up_to(self._consumer, partitions, ends, broker=broker, most=100)


@asynccontextmanager
async def dead_letters(settings: KafkaSettings) -> AsyncIterator[DeadLetters]:
    """Opens the topic of dead letters for reading, outside any consumer group.

    Raises:
        TransientSinkError: the broker cannot be reached.
    """
    async with _consumer(settings, settings.topics.failed) as consumer:
        yield DeadLetters(consumer, settings)


@asynccontextmanager
async def source_records(
    settings: KafkaSettings,
) -> AsyncIterator[Callable[[Letter], Any]]:
    """Reads the records that letters speak of: an awaitable of one letter's record, or of `None`
    where it has expired.

    Raises:
        TransientSinkError: the broker cannot be reached.
    """
    async with _consumer(settings) as consumer:

        async def record_of(letter: Letter) -> ConsumerRecord | None:
            topic, partition, offset = letter.source
            tp = TopicPartition(topic, partition)
            consumer.assign([tp])
            consumer.seek(tp, offset)
            try:
                async with asyncio.timeout(_ONE_RECORD_SECONDS):
                    record = await consumer.getone(tp)
            except TimeoutError:
                return None
            except (aiokafka.errors.KafkaError, OSError) as error:
                raise _unreadable(settings, error) from error
            return record if record.offset == offset else None

        yield record_of


@asynccontextmanager
async def _consumer(settings: KafkaSettings, *topics: str) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        *topics,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=50,
        **settings.client_options(),
    )
    try:
        await consumer.start()
    except (aiokafka.errors.KafkaError, OSError) as error:
        await consumer.stop()
        where = f"no broker answers at {settings.bootstrap_servers}"
        raise await connection_error(settings, error, where) from error
    try:
        yield consumer
    finally:
        await consumer.stop()


def _unreadable(settings: KafkaSettings, error: Exception) -> TransientSinkError:
    return TransientSinkError(f"reading from {settings.bootstrap_servers} failed: {error!r}")


def _letter(record: ConsumerRecord) -> Letter | None:
    """The letter that `record` is; `None` if Imagewire did not write it."""
    headers: dict[str, str] = {}
    for name, value in record.headers:
        # Imagewire's own come last, after any that a producer gave the same name.
        headers[name] = (value or b"").decode("utf-8", errors="replace")
    try:
        origin = Origin(
            headers[DeadLetterHeader.SOURCE_TOPIC],
            int(headers[DeadLetterHeader.SOURCE_PARTITION]),
            int(headers[DeadLetterHeader.SOURCE_OFFSET]),
            int(headers[DeadLetterHeader.TIMESTAMP]),
            record.key,
            record.value,
            tuple(record.headers),
        )
        if not (0 <= origin.partition < 2**31 and 0 <= origin.offset < 2**63):
            return None
        omitted = headers.get(DeadLetterHeader.VALUE_OMITTED)
        frame = frame_from_record(origin)
        return Letter(
            record.partition,
            record.offset,
            # Anybody who may write there may have written it, with any time.
            min(max(record.timestamp, 0), _LAST_MS),
            headers[DeadLetterHeader.IMAGE_ID],
            headers[DeadLetterHeader.FEED],
            headers[DeadLetterHeader.STAGE],
            headers[DeadLetterHeader.REASON],
            headers.get(DeadLetterHeader.DETAIL, ""),
            int(headers[DeadLetterHeader.ATTEMPT]),
            (origin.topic, origin.partition, origin.offset),
            origin.timestamp_ms,
            frame.event_time_ms if frame.captured_at_given else None,
            None if omitted is None else int(omitted),
        )
    except (KeyError, ValueError):
        return None
