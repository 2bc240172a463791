"""The topic of bans, as the command line reads and changes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiokafka.errors
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from imagewire.settings import ConfigurationError, Settings
from models.catalog import load_catalog
from models.device import choose_device
from operators.ban_records import (
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
from operators.decode import make_decoder
from operators.embedding import EmbeddingOperator
from operators.exemplars import packed
from operators.fingerprint import FingerprintOperator
from operators.frame import Frame, Origin
from operators.operator import Operator
from sinks.kafka.reachable import connection_error
from sinks.kafka.settings import KafkaSettings
from sinks.kafka.topics import ensure_topics
from sinks.sink import TransientSinkError

_SILENCE_SECONDS = 20.0
_UNDER_WAY = 10_000
"""Records sent and not yet confirmed: what an import of any length takes in memory."""

LEAST_QUALITY = 50
"""Of a picture whose PDQ hash is banned; below it the hash would match unlike pictures."""

Place = tuple[int, int]
"""Partition and offset."""


class UnusablePictureError(Exception):
    """A picture cannot be read, decoded or hashed; the message says why."""


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
        on_read: Callable[[int], object] = lambda count: None,
    ) -> dict[BanKey, Place]:
        """Every key that stands, and where its record is.

        Raises:
            TransientSinkError: the broker stopped answering.
        """
        found: dict[BanKey, Place] = {}
        read = 0
        async for place, key, value in self._scan():
            read += 1
            if read % 1000 == 0:
                on_read(1000)
            if not only(key):
                continue
            if value is None:
                found.pop(key, None)
            else:
                found[key] = place
        return found

    async def records(self, wanted: Mapping[BanKey, Place]) -> AsyncIterator[BanRecord]:
        """The records of `wanted`, as `standing` gave them.

        Raises:
            TransientSinkError: the broker stopped answering.
        """
        async for place, key, value in self._scan():
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
        keys = await self.standing(lambda key: key.kind == "list")
        return {
            record.name: record
            async for record in self.records(keys)
            if isinstance(record, Banlist)
        }

    async def _scan(self) -> AsyncIterator[tuple[Place, BanKey, bytes | None]]:
        """The topic from its beginning to the end that it has now."""
        consumer = AIOKafkaConsumer(
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            fetch_max_wait_ms=50,
            **self._settings.client_options(),
        )
        try:
            await consumer.start()
            numbers = await self._producer.partitions_for(self._topic)
            partitions = [TopicPartition(self._topic, number) for number in sorted(numbers)]
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            ends: dict[TopicPartition, int] = {}
            last_news = time.monotonic()
            while partitions:
                batches = await consumer.getmany(*partitions, timeout_ms=100, max_records=2000)
                for partition in partitions:
                    # tansu's answer to `end_offsets` is wrong for batches of several records.
                    highwater = consumer.highwater(partition)
                    if highwater is not None and partition not in ends:
                        ends[partition] = highwater
                        last_news = time.monotonic()
                for partition, records in batches.items():
                    last_news = time.monotonic()
                    for record in records:
                        try:
                            key = decode_key(record.key)
                        except BanRecordError:
                            continue
                        yield (partition.partition, record.offset), key, record.value
                partitions = [
                    partition
                    for partition in partitions
                    if partition not in ends or await consumer.position(partition) < ends[partition]
                ]
                if time.monotonic() - last_news > _SILENCE_SECONDS:
                    raise TransientSinkError(
                        f"{self._settings.bootstrap_servers} has not answered for "
                        f"{_SILENCE_SECONDS:.0f} s while bans were read; try again"
                    )
        except (aiokafka.errors.KafkaError, OSError) as error:
            raise TransientSinkError(
                f"reading bans from {self._settings.bootstrap_servers} failed: {error!r}"
            ) from error
        finally:
            await consumer.stop()


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
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnusablePictureError(f"{path} cannot be read: {error.strerror}") from error
    frame = Frame("ban", "ban", 0, Origin("", 0, 0, 0), content=content)
    device = choose_device("cpu", settings.models.precision)
    catalog = load_catalog(settings.models.catalogs)
    decoder = make_decoder(
        device, settings.decode.limits(settings.fetch.max_bytes), threads=1, isolation="process"
    )
    operator: Operator = FingerprintOperator({}, device, catalog)
    if exemplar:
        options = dict(settings.operators.get("embedding", {}))
        if not options.pop("enabled", True):
            raise ConfigurationError("operators.embedding is switched off; exemplars need it")
        options.pop("when", None)
        operator = EmbeddingOperator(options, device, catalog)
    try:
        decoder.decode([frame])
        if not frame.failed:
            operator.setup()
            operator.process([frame])
    finally:
        operator.close()
        decoder.close()
    if frame.failure is not None:
        raise UnusablePictureError(f"{path}: {frame.failure.detail}")
    prints, embedding = frame.findings.fingerprint, frame.findings.embedding
    if prints is None:
        raise UnusablePictureError(f"{path}: the decoder gave no content id")
    about = {"list": banlist, "comment": comment, "added_at": now()}
    if not exemplar:
        by_bytes = BannedHash(kind="sha256", hash=prints.content_id, **about)
        if prints.pdq_quality < LEAST_QUALITY:
            return [by_bytes]
        return [by_bytes, BannedHash(kind="pdq", hash=prints.pdq, **about)]
    if embedding is None:
        raise UnusablePictureError(f"{path}: the embedder gave no embedding")
    return [
        BannedExemplar(
            hash=prints.content_id,
            model=embedding.model,
            vector=packed(embedding.vector),
            **about,
        )
    ]


def added(records: Iterable[BanRecord]) -> Iterable[tuple[BanKey, BanRecord | None]]:
    """`records` as changes that make them."""
    return ((key_of(record), record) for record in records)
