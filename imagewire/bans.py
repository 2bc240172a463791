"""The topic of bans, as the command line reads and changes it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiokafka.errors
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from imagewire.one_picture import UnusablePictureError as UnusablePictureError
from imagewire.one_picture import embedding_of, hashes_of
from imagewire.settings import Settings
from operators.ban_records import (
    HASH_KINDS,
    BanKey,
    Banlist,
    BannedExemplar,
    BannedHash,
    BanRecord,
    BanRecordError,
    decode,
    decode_key,
    encode,
    key_of,
)
from operators.exemplars import packed
from sinks.kafka.reachable import connection_error
from sinks.kafka.reading import read_up_to
from sinks.kafka.settings import KafkaSettings
from sinks.kafka.topics import ensure_topics
from sinks.sink import TransientSinkError

_UNDER_WAY = 10_000
"""Records sent and not yet confirmed: what an import of any length takes in memory."""

LEAST_QUALITY = 50
"""Of a picture whose PDQ hash is banned; below it the hash would match unlike pictures."""

Place = tuple[int, int]
"""Partition and offset."""


def now() -> str:
    """This moment as `added_at` has it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Bans:
    """Reads and writes the topic. Open with `bans`."""

    def __init__(self, settings: KafkaSettings, producer: AIOKafkaProducer) -> None:
        self._settings = settings
        self._producer = producer
        self._topic = settings.topics.bans

    async def write(
        self,
        changes: Iterable[tuple[BanKey, BanRecord | None]],
        on_written: Callable[[int], object] = lambda count: None,
    ) -> int:
        """Make and take back bans; returns how many, once every replica has them.

        Args:
            changes: taken as they can be sent, so there may be any number of them.
            on_written: told after each step how many more were sent.

        Raises:
            TransientSinkError: the broker cannot be reached; what was written before stands, and
                may be written again without harm.
        """
        written = 0
        under_way: list[asyncio.Future[object]] = []
        try:
            for key, record in changes:
                value = None if record is None else encode(record)
                under_way.append(await self._producer.send(self._topic, value, key=key.encode()))
                if len(under_way) == _UNDER_WAY:
                    await asyncio.gather(*under_way)
                    written += len(under_way)
                    on_written(len(under_way))
                    under_way = []
            await asyncio.gather(*under_way)
        except (aiokafka.errors.KafkaError, OSError) as error:
            raise TransientSinkError(
                f"the broker at {self._settings.bootstrap_servers} does not take bans: {error!r}"
            ) from error
        on_written(len(under_way))
        return written + len(under_way)

    async def standing(
        self,
        only: Callable[[BanKey], bool] = lambda key: True,
        banlist: str | None = None,
    ) -> dict[BanKey, Place]:
        """Every key that stands, and where its record is.

        Args:
            banlist: what is on this list alone, which is found sooner than `only` does.

        Raises:
            TransientSinkError: the broker stopped answering.
        """
        found: dict[BanKey, Place] = {}
        async for place, key, value in self._scan(_of_list(banlist)):
            if not only(key):
                continue
            if value is None:
                found.pop(key, None)
            else:
                found[key] = place
        return found

    async def records(self, wanted: Mapping[BanKey, Place]) -> AsyncIterator[BanRecord]:
        """The records of `wanted`, as `standing` gave them. Only the part of the topic in which
        they stand is read.

        Raises:
            TransientSinkError: the broker stopped answering.
        """
        if not wanted:
            return
        between: dict[int, tuple[int, int]] = {}
        for partition, offset in wanted.values():
            first, last = between.get(partition, (offset, offset))
            between[partition] = (min(first, offset), max(last, offset))
        async for place, key, value in self._scan(between=between):
            if value is not None and wanted.get(key) == place:
                try:
                    yield decode(key, value)
                except BanRecordError:
                    continue  # workers pass it over too, and count it

    async def lists(self) -> dict[str, Banlist]:
        """The settings of every list, by name.

        Raises:
            TransientSinkError: the broker stopped answering.
        """
        found: dict[str, Banlist] = {}
        async for _, key, value in self._scan((b"list:",)):
            found.pop(key.list, None)
            if value is not None:
                with contextlib.suppress(BanRecordError):  # workers pass it over too, and count it
                    record = decode(key, value)
                    if isinstance(record, Banlist):
                        found[record.name] = record
        return found

    async def _scan(
        self,
        prefixes: tuple[bytes, ...] = (b"",),
        between: Mapping[int, tuple[int, int]] | None = None,
    ) -> AsyncIterator[tuple[Place, BanKey, bytes | None]]:
        """The topic from its beginning to the end that it has now.

        Args:
            prefixes: only records whose keys begin with one of them.
            between: only what stands in these partitions between two offsets, both included.
        """
        broker = self._settings.bootstrap_servers
        consumer = AIOKafkaConsumer(
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            fetch_max_wait_ms=50,
            **self._settings.client_options(),
        )
        try:
            await consumer.start()
            numbers = await self._producer.partitions_for(self._topic) if between is None else ()
            partitions = [TopicPartition(self._topic, each) for each in sorted(between or numbers)]
            consumer.assign(partitions)
            ends: dict[TopicPartition, int] = {}
            if between is None:
                await consumer.seek_to_beginning(*partitions)
            else:
                for each in partitions:
                    first, last = between[each.partition]
                    consumer.seek(each, first)
                    ends[each] = last + 1
            async for each, records in read_up_to(
                consumer, partitions, ends, broker=broker, most=2000
            ):
                for record in records:
                    if record.key is None or not record.key.startswith(prefixes):
                        continue
                    try:
                        key = decode_key(record.key)
                    except BanRecordError:
                        continue
                    yield (each.partition, record.offset), key, record.value
        except (aiokafka.errors.KafkaError, OSError) as error:
            raise TransientSinkError(f"reading bans from {broker} failed: {error!r}") from error
        finally:
            await consumer.stop()


def _of_list(name: str | None) -> tuple[bytes, ...]:
    """What the keys of a list and of its entries begin with."""
    if name is None:
        return (b"",)
    kinds = ("list", *HASH_KINDS, "exemplar")
    return tuple(f"{kind}:{name}".encode() for kind in kinds)


@asynccontextmanager
async def bans(settings: KafkaSettings) -> AsyncIterator[Bans]:
    """Opens the topic of bans, which is made if it is not there.

    Raises:
        TransientSinkError: no broker can be reached.
        PermanentSinkError: the broker does not let us in.
    """
    await ensure_topics(settings)
    producer = AIOKafkaProducer(**settings.producer_options())
    try:
        await producer.start()
    except (aiokafka.errors.KafkaError, OSError) as error:
        await producer.stop()
        where = f"no broker answers at {settings.bootstrap_servers}"
        raise await connection_error(settings, error, where) from error
    try:
        yield Bans(settings, producer)
    finally:
        await producer.stop()


def of_picture(
    path: Path, settings: Settings, banlist: str, comment: str, *, exemplar: bool
) -> list[BanRecord]:
    """What bans the picture in `path`: the SHA-256 of the file and the PDQ hash of the picture, or
    its embedding. The PDQ hash is left out where the picture has too little structure for it.

    The picture is a suspect one, so it is decoded in a process that contains what it may do.

    Raises:
        UnusablePictureError
        ConfigurationError: embeddings are switched off.
    """
    about = {"list": banlist, "comment": comment, "added_at": now()}
    if exemplar:
        embedding, content_id = embedding_of(path, settings, "process")
        return [
            BannedExemplar(
                hash=content_id, model=embedding.model, vector=packed(embedding.vector), **about
            )
        ]
    content_id, pdq, quality = hashes_of(path, settings)
    by_bytes = BannedHash(kind="sha256", hash=content_id, **about)
    if quality < LEAST_QUALITY:
        return [by_bytes]
    return [by_bytes, BannedHash(kind="pdq", hash=pdq, **about)]


def added(records: Iterable[BanRecord]) -> Iterable[tuple[BanKey, BanRecord | None]]:
    """`records` as changes that make them."""
    return ((key_of(record), record) for record in records)
