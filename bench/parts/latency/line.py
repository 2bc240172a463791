"""One line to a worker: photos go in as references on one end, verdicts come out on the other.

Latency is read from Kafka alone: an image's timestamp is the moment in which it was handed to the
producer, a verdict's the one in which the broker had it (`LogAppendTime`), so nothing has to listen
while the clock runs. Photos are written before a load begins, and no two have the same bytes.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench.photos import Photos
from bench.testbed import PARTITIONS, BenchError, Route, reference

_PATIENCE = 120.0


class Seen(NamedTuple):
    """An image's way: Unix seconds at which it was published and at which its verdict was there."""

    published: float
    decided: float

    @property
    def latency(self) -> float:
        return self.decided - self.published


@dataclass(frozen=True, slots=True)
class Load:
    """Images that arrive by themselves, independently of each other: a Poisson process of which it
    is known how many come, since with some hundred images chance would make 100 % of 110 %.

    Attributes:
        rate: images a second.
        seconds: for how long they come.
        seed: of the arrivals' times.
    """

    rate: float
    seconds: float
    seed: int

    def arrivals(self) -> list[float]:
        """Seconds from the beginning, ascending."""
        generator = random.Random(self.seed)
        number = max(round(self.rate * self.seconds), 1)
        # Given their number, the arrivals of a Poisson process are independent and uniform.
        return sorted(generator.uniform(0, self.seconds) for _ in range(number))


class Line:
    """An async context manager; its topics are made on entering.

    Args:
        folder: for photos; the worker may read references to it.
    """

    def __init__(self, bootstrap: str, route: Route, photos: Photos, folder: Path) -> None:
        self._bootstrap = bootstrap
        self._route = route
        self._photos = photos
        self._folder = folder
        self._numbers = itertools.count()
        self._unread = f"{route.images}.unread"
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks=1)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
        )
        self._published: dict[str, float] = {}
        self._seen: dict[str, Seen] = {}

    async def __aenter__(self) -> Self:
        await self._create_topics()
        await self._producer.start()
        await self._consumer.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._producer.stop()
        await self._consumer.stop()

    async def _create_topics(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            # By default a verdict's timestamp is the moment in which its producer got it, and
            # what happens afterwards would not be seen.
            when_written = {"message.timestamp.type": "LogAppendTime"}
            await admin.create_topics(
                [
                    NewTopic(self._route.images, PARTITIONS, 1),
                    NewTopic(self._unread, PARTITIONS, 1),
                    NewTopic(self._route.verdicts, PARTITIONS, 1, topic_configs=when_written),
                ]
            )
        finally:
            await admin.close()

    async def burst(self, images: int, beside: float = 0.0) -> list[Seen]:
        """Publish `images` at once; returns when all are decided, in the order of verdicts.

        Args:
            beside: images a second that are published meanwhile to a topic that nobody reads, so
                that the producer and the broker take as much of the cores as under such a load.
        """
        async with self._photos_on_disk(images) as references:
            for name, uri in references:
                await self._publish(name, uri)
            publishing = asyncio.create_task(self._publish_unread(beside))
            try:
                return await self._decided([name for name, _ in references])
            finally:
                if not publishing.cancel():
                    publishing.result()

    async def load(self, load: Load) -> list[Seen]:
        """Publish photos as `load` says; returns when all are decided, in the order of verdicts."""
        arrivals = load.arrivals()
        async with self._photos_on_disk(len(arrivals)) as references:
            began = time.monotonic()
            for due, (name, uri) in zip(arrivals, references, strict=True):
                await asyncio.sleep(began + due - time.monotonic())
                await self._publish(name, uri)
            return await self._decided([name for name, _ in references])

    def _photos_on_disk(self, images: int) -> _PhotosOnDisk:
        numbers = list(itertools.islice(self._numbers, images))
        return _PhotosOnDisk(self._photos, self._folder / f"from-{numbers[0]}", numbers)

    async def _publish(self, name: str, uri: str) -> None:
        record = reference(name, uri)
        now = time.time_ns() // 1_000_000
        self._published[name] = now / 1000
        await self._producer.send(
            self._route.images, record.value, key=record.key, timestamp_ms=now
        )

    async def _publish_unread(self, rate: float) -> None:
        generator = random.Random(0)
        while rate > 0:
            await asyncio.sleep(generator.expovariate(rate))
            record = reference("unread", (self._folder / "unread.jpg").as_uri())
            await self._producer.send(self._unread, record.value, key=record.key)

    async def _decided(self, names: Sequence[str]) -> list[Seen]:
        if not self._consumer.assignment():  # not before the topics have leaders
            partitions = range(PARTITIONS)
            self._consumer.assign(
                [TopicPartition(self._route.verdicts, number) for number in partitions]
            )
        deadline = time.monotonic() + _PATIENCE
        missing = {name for name in names if name not in self._seen}
        while missing:
            if time.monotonic() > deadline:
                raise BenchError(
                    f"{len(missing)} of {len(names)} images have no verdict after {_PATIENCE:g} s"
                )
            for records in (await self._consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    name = (record.key or b"").decode()
                    if name in missing:
                        self._seen[name] = Seen(self._published[name], record.timestamp / 1000)
                        missing.discard(name)
        return sorted((self._seen[name] for name in names), key=lambda seen: seen.decided)


class _PhotosOnDisk:
    """Photos in a folder of their own, gone afterwards."""

    def __init__(self, photos: Photos, folder: Path, numbers: Sequence[int]) -> None:
        self._photos = photos
        self._folder = folder
        self._numbers = numbers

    async def __aenter__(self) -> list[tuple[str, str]]:
        paths = await asyncio.to_thread(self._photos.write, self._folder, self._numbers)
        return [(f"photo-{path.stem}", path.as_uri()) for path in paths]

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(shutil.rmtree, self._folder)
