"""The topic of verdicts as a stream that can be taken up again where it was left.

Every event says how far its reader has come: of each partition the next offset. Who comes back with
that is first given what came meanwhile, read from Kafka, and then what comes live; nothing is left
out and nothing comes twice. Who reads more slowly than verdicts come is sent away, and does not
lose anything by that: what is kept for a reader in memory is bounded, and Kafka has the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from imagewire.api.kafka_tail import KafkaTail
from sinks.kafka.reachable import connection_error
from sinks.kafka.settings import KafkaSettings
from sinks.sink import TransientSinkError

logger = logging.getLogger(__name__)

_KEPT = 10_000
"""Verdicts kept for a reader who is slow, or is still being given what came before."""
_CATCHING_UP = 4
"""Readers for whom what came before is read at the same time: each takes a connection."""
_PIECE_BYTES = 1024 * 1024
"""Read at a time for one of them. A reader who takes it slowly, or not at all, holds nobody up."""
_STUCK_SECONDS = 20.0
_LONGEST_ID = 8192
_POSITIONS = re.compile(r"\d{1,6}:\d{1,18}(,\d{1,6}:\d{1,18})*", re.ASCII)

Progress = dict[int, int]
"""Partition to the offset of the record that a reader is to be given next."""


class BadPositionError(ValueError):
    """What should be the id of an event is none."""


@dataclass(frozen=True, slots=True)
class Told:
    """A verdict. `data`: the record as JSON in one line."""

    partition: int
    offset: int
    feed: str
    action: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Gap:
    """Records that Kafka no longer has: from `first` up to, not including, `until`."""

    partition: int
    first: int
    until: int


class TooSlowError(Exception):
    """The reader does not keep up, and may come back with the id of the last event."""


class _Named(msgspec.Struct):
    feed: str
    action: str


_decode = msgspec.json.Decoder(_Named).decode


def progress_of(text: str) -> Progress:
    """What an event's id says.

    Raises:
        BadPositionError
    """
    if len(text) > _LONGEST_ID or not _POSITIONS.fullmatch(text):
        raise BadPositionError(
            "Last-Event-ID is no id of an event of this stream; leave it out to begin with what "
            "comes now"
        )
    pairs = (pair.split(":") for pair in text.split(","))
    return {int(partition): int(offset) for partition, offset in pairs}


def id_of(progress: Mapping[int, int]) -> str:
    """An event's id, such as `0:42,1:17`."""
    return ",".join(f"{partition}:{offset}" for partition, offset in sorted(progress.items()))


class Reader:
    """One who reads the stream.

    Attributes:
        progress: how far the reader has come.
    """

    def __init__(self, feed: VerdictFeed, after: Progress | None) -> None:
        self._feed = feed
        self._live: asyncio.Queue[Told | None] = asyncio.Queue(_KEPT + 1)
        self._overflowed = False
        self.progress: Progress = feed.positions()
        self._missed: dict[int, tuple[int, int]] = {}
        if after is not None:
            # A partition that is not in the id was added since: all of it is new.
            self._missed = {
                partition: (after.get(partition, 0), end)
                for partition, end in self.progress.items()
                if after.get(partition, 0) < end
            }
            self.progress |= {partition: first for partition, (first, _) in self._missed.items()}

    def take(self, told: Told | None) -> None:
        """A verdict has come; None: there will be no more."""
        if self._live.qsize() >= _KEPT and told is not None:
            self._overflowed = True
            return
        if not self._live.full():
            self._live.put_nowait(told)

    async def missed(self) -> AsyncIterator[Told | Gap]:
        """What came while the reader was away. Read this first."""
        if self._missed:
            async for told in self._feed.between(self._missed):
                yield told
        for partition, (_, end) in self._missed.items():
            self.progress[partition] = end

    def given(self, told: Told | Gap) -> None:
        """The reader is given this now."""
        after = told.offset + 1 if isinstance(told, Told) else told.until
        self.progress[told.partition] = after

    async def next(self, seconds: float) -> list[Told] | None:
        """Verdicts that have come, at least one unless none did for `seconds`; None: the end.

        Raises:
            TooSlowError: some would be left out.
        """
        if self._overflowed:
            raise TooSlowError
        try:
            async with asyncio.timeout(seconds):
                come = [await self._live.get()]
        except TimeoutError:
            return []
        while not self._live.empty() and len(come) < 100:
            come.append(self._live.get_nowait())
        told: list[Told] = []
        for each in come:
            if each is None:
                return told or None
            told.append(each)
        return told


class VerdictFeed:
    """The live verdicts of a process, for all its readers."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._topic = settings.topics.verdicts
        self._tail = KafkaTail(settings, [self._topic])
        self._readers: set[Reader] = set()
        self._catching_up = asyncio.Semaphore(_CATCHING_UP)
        self._joining = 0

    @property
    def readers(self) -> int:
        """How many read, or are about to."""
        return len(self._readers) + self._joining

    async def join(self, after: Progress | None) -> Reader:
        """A new reader, who has read up to `after`; None: who begins with what comes now.

        Raises:
            SinkError: the broker cannot be reached, or lets nobody in.
        """
        self._joining += 1
        try:
            await self._tail.ready()
            if after is not None:
                after = await self._possible(after)
        finally:
            self._joining -= 1
        # Nothing is awaited from here on, so no verdict comes between what was and what will be.
        reader = Reader(self, after)
        self._readers.add(reader)
        self._tail.listen(self._tell)
        return reader

    def leave(self, reader: Reader) -> None:
        """The reader has gone."""
        self._readers.discard(reader)
        if not self._readers:
            self._tail.leave(self._tell)

    def end(self) -> None:
        """Have every reader's stream end."""
        for reader in self._readers:
            reader.take(None)

    async def close(self) -> None:
        """End every stream and stop following the topic."""
        self.end()
        await self._tail.close()

    def positions(self) -> dict[int, int]:
        """Of each partition the offset of the next verdict that will be told live."""
        return {place.partition: offset for place, offset in self._tail.positions.items()}

    async def between(self, wanted: Mapping[int, tuple[int, int]]) -> AsyncIterator[Told | Gap]:
        """Verdicts that were told before.

        Args:
            wanted: partition to the first offset, and the one after the last.

        Raises:
            TransientSinkError: the broker does not answer.
        """
        left = dict(wanted)
        while left:
            async with self._catching_up:
                found, left = await self._piece(left)
            for told in found:
                yield told

    async def _possible(self, after: Progress) -> Progress:
        """`after` without what the topic never had: it was made anew, so all that it has is new."""
        ahead = {
            place: after[place.partition]
            for place, offset in self._tail.positions.items()
            if after.get(place.partition, 0) > offset
        }
        if not ahead:
            return after
        # Another process of the API, which the reader comes from, may have been told more by now.
        ends = await self._tail.ends()
        never = {place for place, offset in ahead.items() if offset > ends.get(place, 0)}
        wanted = {place: ahead[place] for place in ahead.keys() - never}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STUCK_SECONDS):
                while not _reached(self._tail.positions, wanted):  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0.02)
        return {
            partition: offset
            for partition, offset in after.items()
            if partition not in {place.partition for place in never}
        }

    async def _piece(
        self, wanted: Mapping[int, tuple[int, int]]
    ) -> tuple[list[Told | Gap], dict[int, tuple[int, int]]]:
        """Some of what is wanted, and what is wanted after it."""
        consumer = AIOKafkaConsumer(
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            fetch_max_wait_ms=100,
            **self._settings.client_options(),
        )
        try:
            await consumer.start()
            return await _piece(consumer, self._topic, wanted)
        except (KafkaError, OSError, TimeoutError) as error:
            where = f"verdicts cannot be read at {self._settings.bootstrap_servers}"
            if isinstance(error, TimeoutError):
                raise TransientSinkError(f"{where}: no answer") from error
            raise await connection_error(self._settings, error, where) from error
        finally:
            await consumer.stop()

    def _tell(self, record: ConsumerRecord) -> None:
        told = _told(record)
        if told is not None:
            for reader in self._readers:
                reader.take(told)


def _reached(positions: Mapping[TopicPartition, int], wanted: Mapping[TopicPartition, int]) -> bool:
    return all(positions[place] >= offset for place, offset in wanted.items())


async def _piece(
    consumer: AIOKafkaConsumer, topic: str, wanted: Mapping[int, tuple[int, int]]
) -> tuple[list[Told | Gap], dict[int, tuple[int, int]]]:
    left = {TopicPartition(topic, partition): ends for partition, ends in wanted.items()}
    consumer.assign(list(left))
    async with asyncio.timeout(_STUCK_SECONDS):
        beginnings = await consumer.beginning_offsets(list(left))
    found: list[Told | Gap] = []
    for place, (first, end) in list(left.items()):
        begin = min(beginnings[place], end)
        if begin > first:
            found.append(Gap(place.partition, first, begin))
        if begin >= end:
            del left[place]
            consumer.pause(place)
        else:
            left[place] = (max(first, begin), end)
            consumer.seek(place, max(first, begin))
    size = 0
    while left and size < _PIECE_BYTES:
        async with asyncio.timeout(_STUCK_SECONDS):
            records = await _some(consumer)
        for place, batch in records.items():
            if place not in left:
                continue
            end = left[place][1]
            for record in batch:
                size += len(record.value or b"")
                if record.offset < end and (told := _told(record)) is not None:
                    found.append(told)
            position = await consumer.position(place)
            left[place] = (position, end)
            if position >= end:
                del left[place]
                consumer.pause(place)
    return found, {place.partition: ends for place, ends in left.items()}


async def _some(consumer: AIOKafkaConsumer) -> dict[TopicPartition, list[ConsumerRecord]]:
    while True:
        records: dict[TopicPartition, list[ConsumerRecord]] = await consumer.getmany(
            timeout_ms=1000, max_records=500
        )
        if records:
            return records


def _told(record: ConsumerRecord) -> Told | None:
    value = bytes(record.value or b"")
    try:
        named = _decode(value)
        if b"\n" in value or b"\r" in value:  # by another producer: an event's line would end
            value = msgspec.json.encode(msgspec.json.decode(value))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        logger.debug("no verdict: %s/%d/%d", record.topic, record.partition, record.offset)
        return None
    return Told(record.partition, record.offset, named.feed, named.action, value)
