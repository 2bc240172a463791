"""Publishing and lifting tombstones, and taking decisions about erased images off their topic.

There may be millions of images with one content, so ids go through here some at a time, and wait on
disk for the stores to be gone through.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from sinks.clickhouse.erasing import Selection
from sinks.kafka.settings import KafkaSettings
from sinks.sink import TransientSinkError
from streams.reviews_overrides import override_keys
from streams.tombstones import Kind, tombstone_key, tombstone_record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

AT_ONCE = 10_000
"""Ids in memory: each is at most some hundred bytes."""
_SET_BY_BROKER = 1
"""Kafka's code of `message.timestamp.type=LogAppendTime`."""


class TombstonesRefusedError(TransientSinkError):
    """The broker does not take tombstones."""


class IdsOnDisk:
    """Ids in a file without a name, which the operating system removes in any case. A context
    manager.

    Attributes:
        first: the first thousand, to be shown.
    """

    SHOWN = 1000

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed on leaving
        self._count = 0
        self.first: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._count

    def add(self, ids: Sequence[str]) -> None:
        """Keep some more."""
        self._file.seek(0, 2)
        self._file.write(b"".join(msgspec.json.encode(each) + b"\n" for each in ids))
        self._count += len(ids)
        self.first += ids[: self.SHOWN - len(self.first)]

    def pages(self) -> Iterator[list[str]]:
        """All, in pages of `AT_ONCE`. One at a time may go through them."""
        self._file.seek(0)
        page: list[str] = []
        for line in self._file:
            page.append(msgspec.json.decode(line, type=str))
            if len(page) == AT_ONCE:
                yield page
                page = []
        if page:
            yield page


class TombstonePublisher:
    """Open with `tombstone_publisher`.

    Attributes:
        tombstones, withdrawn: records that were written to the topics of tombstones and of
            decisions.
    """

    def __init__(self, kafka: KafkaSettings, producer: AIOKafkaProducer) -> None:
        self._topics = kafka.topics
        self._broker = kafka.bootstrap_servers
        self._producer = producer
        self.tombstones = 0
        self.withdrawn = 0

    async def forget(self, selection: Selection) -> None:
        """Have everything in `selection` forgotten from now on.

        Raises:
            TombstonesRefusedError: the broker does not take it.
        """
        now = await self._now() if selection.feeds else time.time_ns() // 1_000_000
        records = [
            tombstone_record(kind, name, now)
            for kind, names in _named(selection).items()
            for name in names
        ]
        await self._send(self._topics.forgotten, records)
        self.tombstones += len(records)
        keys = [key for each in selection.image_ids for key in override_keys(each)]
        keys += [key for each in selection.content_ids for key in override_keys(content_id=each)]
        await self._withdraw(keys)

    async def withdraw_decisions(self, image_ids: Sequence[str]) -> None:
        """Take the decisions about these images off the compacted topic, which would keep their
        ids for ever.

        Raises:
            TombstonesRefusedError: the broker does not take it.
        """
        await self._withdraw([key for each in image_ids for key in override_keys(each)])

    async def lift(self, selection: Selection) -> int:
        """Take tombstones back; returns how many were named.

        Raises:
            TombstonesRefusedError: the broker does not take it.
        """
        keys = [
            tombstone_key(kind, name) for kind, names in _named(selection).items() for name in names
        ]
        await self._send(self._topics.forgotten, [(key, None) for key in keys])
        return len(keys)

    async def _withdraw(self, keys: Sequence[bytes]) -> None:
        await self._send(self._topics.overrides, [(key, None) for key in keys])
        self.withdrawn += len(keys)

    async def _now(self) -> int:
        """The broker's time in milliseconds since the epoch, which is what records that come to
        Kafka are dated by: with a clock of ours that is behind, a replay would bring back what was
        erased, and with one that is ahead new images would be dropped.

        Asked for with a record that lifts a tombstone which nobody ever wrote. Where the topic does
        not date its records itself, this machine's time has to do.
        """
        nobody = tombstone_key("image", f"nobody {uuid.uuid4()}")
        stored = (await self._send(self._topics.forgotten, [(nobody, None)]))[0]
        if stored.timestamp_type == _SET_BY_BROKER:
            return int(stored.timestamp)
        return time.time_ns() // 1_000_000

    async def _send(self, topic: str, records: Iterable[tuple[bytes, bytes | None]]) -> list[Any]:
        try:
            sent = [await self._producer.send(topic, value, key=key) for key, value in records]
            return await asyncio.gather(*sent)
        except (KafkaError, OSError) as error:
            raise _refused(self._broker, error) from error


@asynccontextmanager
async def tombstone_publisher(kafka: KafkaSettings) -> AsyncIterator[TombstonePublisher]:
    """Connects to the broker.

    Raises:
        TombstonesRefusedError: it does not answer.
    """
    producer = AIOKafkaProducer(**kafka.producer_options())
    try:
        try:
            await producer.start()
        except (KafkaError, OSError) as error:
            raise _refused(kafka.bootstrap_servers, error) from error
        yield TombstonePublisher(kafka, producer)
    finally:
        await producer.stop()


def _named(selection: Selection) -> dict[Kind, Sequence[str]]:
    return {
        "image": selection.image_ids,
        "content": selection.content_ids,
        "feed": selection.feeds,
    }


def _refused(broker: str, error: Exception) -> TombstonesRefusedError:
    return TombstonesRefusedError(
        f"the broker at {broker} does not take tombstones: {error!r}; nothing was erased, run it "
        "again"
    )
