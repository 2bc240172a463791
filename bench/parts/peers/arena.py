"""Where the contenders meet: one broker, both stores, the photos, and what counts results.

All contenders run side by side for the whole part, each on a topic of its own, and only the one
that is measured gets images; so models are loaded once and the rounds can be interleaved.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from qdrant_client import AsyncQdrantClient, models

from bench.parts.peers.contenders import Contender
from bench.parts.peers.references import References, Source
from bench.peers.task import SESSION_TIMEOUT
from bench.processor_time import cpu_seconds
from imagewire.connection import pointed_at
from imagewire.embedded.process import ManagedProcess, RestartPolicy
from imagewire.embedded.stack import Stack
from imagewire.native_environment import NATIVE_SETTINGS
from imagewire.settings import Settings, load_settings
from sinks.clickhouse.reader import ClickHouseReader, QueryError
from sinks.kafka.settings import KafkaSettings, TopicNames
from sinks.kafka.topics import ensure_topics
from sinks.qdrant.connection import ERRORS as QDRANT_ERRORS
from sinks.qdrant.connection import connect

logger = logging.getLogger(__name__)

_AT_ONCE = RestartPolicy(first_delay=0.1, longest_delay=0.5, healthy_after=1.0, attempts=20)
_LOOK_AGAIN = 0.02


@dataclass(slots=True)
class Seen:
    """What came out for one feed: when each image's verdict was first seen (Unix seconds), and how
    many verdict and findings records there were."""

    verdict_at: dict[str, float] = field(default_factory=dict)
    verdicts: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)


class _Identified(msgspec.Struct):
    image_id: str
    feed: str


class NotStoredError(RuntimeError):
    """A contender did not store everything in time."""


class Arena:
    """An async context manager: the stack, the producer and the watchers; no contenders yet."""

    def __init__(
        self,
        directory: Path,
        references: References,
        contenders: Sequence[Contender],
        device: str = "cpu",
    ) -> None:
        self._device = device
        self._directory = directory
        self._references = references
        self._contenders = contenders
        self._exit = AsyncExitStack()
        self._seen: dict[str, Seen] = {}
        self._progress = asyncio.Condition()
        self._processes: dict[str, ManagedProcess] = {}
        self._feeds = 0
        self._numbers = 0
        self._starts = 0

    async def __aenter__(self) -> Self:
        try:
            enter = self._exit.enter_async_context
            self._stack = await enter(
                Stack(self._directory / "data", file_roots=[self._references.folder])
            )
            self._settings: Settings = pointed_at(load_settings().settings, self._stack.record)
            kafka = self._settings.kafka
            for contender in self._contenders:
                await ensure_topics(_with_topics(kafka, contender.topics))
            self._producer = await enter(
                AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all")
            )
            self._watcher = await enter(
                AIOKafkaConsumer(
                    kafka.topics.verdicts,
                    kafka.topics.findings,
                    bootstrap_servers=kafka.bootstrap_servers,
                    auto_offset_reset="earliest",
                )
            )
            self._admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
            await self._admin.start()
            self._exit.push_async_callback(self._admin.close)
            self._reader = self._exit.enter_context(ClickHouseReader(self._settings.clickhouse))
            self._qdrant: AsyncQdrantClient = connect(self._settings.qdrant)
            self._exit.push_async_callback(self._qdrant.close)
            watching = asyncio.create_task(self._watch(), name="watch verdicts")
            self._exit.push_async_callback(_cancelled, watching)
            self._exit.push_async_callback(self.dismiss)
        except BaseException:
            await self._exit.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._exit.aclose()

    # contenders

    async def call(self, contenders: Sequence[Contender], operators: Mapping[str, bool]) -> None:
        """Start `contenders`, all at once, with these built-in operators switched on or off."""
        self._starts += 1
        for contender in contenders:
            process = ManagedProcess(
                f"{contender.name}-{self._starts}",
                [sys.executable, "-m", contender.module, *contender.arguments],
                log_directory=self._directory / "logs",
                environment=self._environment(contender, operators),
                restart=_AT_ONCE,
                stop_timeout=15.0,
            )
            self._processes[contender.name] = process
            await process.start()

    async def dismiss(self) -> None:
        """Stop every contender."""
        processes, self._processes = list(self._processes.values()), {}
        await asyncio.gather(*(process.stop() for process in processes))

    def kill(self, contender: Contender) -> None:
        """Kill a contender and all that it started with SIGKILL; it is started again."""
        self._processes[contender.name].kill()

    def kill_clickhouse(self) -> None:
        """Kill the tables' engine with SIGKILL; the stack starts it again."""
        # Counting goes on meanwhile, and the driver would write a line for each vain attempt.
        logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)
        for process in self._stack.status():
            if process.name == "clickhouse" and process.pid is not None:
                os.kill(process.pid, signal.SIGKILL)

    def cpu_seconds(self, contender: Contender) -> float:
        """Processor time of a contender and all that it started, so far."""
        pid = self._processes[contender.name].pid
        return 0.0 if pid is None else cpu_seconds(pid)

    def _environment(self, contender: Contender, operators: Mapping[str, bool]) -> dict[str, str]:
        topics = contender.topics
        # Imagewire makes these settings for itself; that they are made is not a peer's merit.
        inherited = {k: v for k, v in os.environ.items() if k not in NATIVE_SETTINGS}
        switches = {
            f"IMAGEWIRE_OPERATORS__{name.upper()}__ENABLED": str(on).lower()
            for name, on in operators.items()
        }
        return {
            **inherited,
            **self._stack.environment(),
            **switches,
            "IMAGEWIRE_KAFKA__TOPICS__IMAGES": topics.images,
            "IMAGEWIRE_KAFKA__TOPICS__BULK": topics.bulk,
            "IMAGEWIRE_STREAM__GROUP": contender.name,
            "IMAGEWIRE_STREAM__SESSION_TIMEOUT": f"{SESSION_TIMEOUT:g}",
            **self._references.environment(),
            "IMAGEWIRE_MODELS__DEVICE": self._device,
            "IMAGEWIRE_HTTP__PORT": "0",
            # The photos come again and again; no peer knows that it has seen one before.
            "IMAGEWIRE_REUSE__IDENTICAL": "false",
            "IMAGEWIRE_LOG__LEVEL": "WARNING",
        }

    def log_tail(self, contender: Contender) -> str:
        """The end of what a contender wrote."""
        return self._processes[contender.name].log_tail()

    # images

    def new_feed(self, contender: Contender, what: str) -> str:
        """A feed that nobody used."""
        self._feeds += 1
        return f"{contender.name}-{what}-{self._feeds}"

    async def publish(
        self,
        contender: Contender,
        feed: str,
        source: Source,
        count: int,
        at: Sequence[float] | None = None,
    ) -> dict[str, float]:
        """Publish `count` photos, at once or at the seconds `at` from now.

        Every photo differs from all that were published before in its bytes, though not in its
        pixels, so that nobody gains by remembering.

        Returns:
            The Unix time of publication by image id.
        """
        self._seen.setdefault(feed, Seen())
        published: dict[str, float] = {}
        values = []
        for _ in range(count):
            self._numbers += 1
            image_id = f"{feed}-{self._numbers:06d}"
            uri = self._references.uri(self._numbers, source)
            values.append((image_id, uri))
        began = time.time()
        pending = []
        for number, (image_id, uri) in enumerate(values):
            if at is not None:
                await asyncio.sleep(max(began + at[number] - time.time(), 0))
            now = time.time()
            published[image_id] = now
            record = {"id": image_id, "uri": uri, "feed": feed, "captured_at": int(now * 1000)}
            pending.append(
                await self._producer.send(
                    contender.topics.images,
                    msgspec.json.encode(record),
                    key=image_id.encode(),
                    timestamp_ms=int(now * 1000),
                )
            )
        await asyncio.gather(*pending)
        return published

    # results

    def seen(self, feed: str) -> Seen:
        """What was seen of a feed on Kafka so far."""
        return self._seen.setdefault(feed, Seen())

    async def until_verdicts(self, feed: str, count: int, within: float) -> None:
        """Wait until so many images of a feed have their verdict.

        Raises:
            TimeoutError
        """
        await self._until(lambda: len(self.seen(feed).verdict_at) >= count, within)

    async def until_stored(self, feed: str, count: int, within: float) -> float:
        """Wait until Kafka, ClickHouse and Qdrant hold `count` images of a feed; returns when.

        The stores are asked only once all of Kafka's records are there, so that asking costs the
        contenders next to nothing.

        Raises:
            NotStoredError
        """
        began = time.monotonic()
        seen = self.seen(feed)
        with suppress(TimeoutError):
            await self._until(
                lambda: min(len(seen.verdicts), len(seen.findings)) >= count,
                within,
            )
        while True:
            rows, points = await self.stored(feed)
            if min(rows, points, len(seen.verdicts), len(seen.findings)) >= count:
                return time.time()
            if time.monotonic() - began > within:
                raise NotStoredError(
                    f"{feed}: of {count} images, {len(seen.verdicts)} have a verdict, "
                    f"{len(seen.findings)} findings, {rows} a row and {points} a point after "
                    f"{within:g} s"
                )
            await asyncio.sleep(_LOOK_AGAIN)

    async def stored(self, feed: str) -> tuple[int, int]:
        """How many different images of a feed are in ClickHouse and in Qdrant; -1 for one that does
        not answer."""
        rows = await asyncio.to_thread(self._rows, feed)
        of_feed = models.Filter(
            must=[models.FieldCondition(key="feed", match=models.MatchValue(value=feed))]
        )
        try:
            counted = await self._qdrant.count(
                self._settings.qdrant.collection, count_filter=of_feed, exact=True
            )
        except QDRANT_ERRORS as error:  # the first contender to open it makes the collection
            logger.debug("counting points: %s", error)
            return rows, -1
        return rows, counted.count

    async def unfinished(self, contender: Contender) -> int:
        """How many records of its topic a contender has not committed yet. One that commits after
        storing has done all it will do once this is 0."""
        ends = await self._watcher.end_offsets(
            [
                TopicPartition(contender.topics.images, number)
                for number in range(self._settings.kafka.partitions)
            ]
        )
        committed = await self._admin.list_consumer_group_offsets(contender.name)
        return sum(
            end - max(committed[partition].offset if partition in committed else 0, 0)
            for partition, end in ends.items()
        )

    def rows_of(self, feed: str) -> int:
        """How many rows an analyst sees of a feed."""
        return self._count("SELECT count() AS n FROM images WHERE feed = {feed:String}", feed)

    def _rows(self, feed: str) -> int:
        try:
            return self._count(
                "SELECT uniqExact(image_id) AS n FROM images_raw WHERE feed = {feed:String}", feed
            )
        except QueryError as error:  # the first contender to open it makes the tables
            logger.debug("counting rows: %s", error)
            return -1

    def _count(self, sql: str, feed: str) -> int:
        return int(self._reader.query(sql, {"feed": feed}).column("n")[0].as_py())

    async def _until(self, done: Callable[[], bool], within: float) -> None:
        async with asyncio.timeout(within), self._progress:
            await self._progress.wait_for(done)

    async def _watch(self) -> None:
        decoder = msgspec.json.Decoder(_Identified)
        verdicts = self._settings.kafka.topics.verdicts
        while True:
            polled = await self._watcher.getmany(timeout_ms=1000)
            now = time.time()
            for partition, records in polled.items():
                for record in records:
                    found = decoder.decode(record.value)
                    seen = self.seen(found.feed)
                    if partition.topic == verdicts:
                        seen.verdicts[found.image_id] += 1
                        seen.verdict_at.setdefault(found.image_id, now)
                    else:
                        seen.findings[found.image_id] += 1
            async with self._progress:
                self._progress.notify_all()


def _with_topics(kafka: KafkaSettings, topics: TopicNames) -> KafkaSettings:
    return kafka.model_copy(update={"topics": topics})


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
