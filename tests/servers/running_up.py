"""`imagewire up` as a person runs it: a process of its own over a data directory."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from topic_reading import everything_on

from imagewire.connection import find_connection
from imagewire.embedded.datadir import find_running
from imagewire.publishing import Publication, Published, image_publisher
from imagewire.settings import Settings
from operators.frame import Lane, Origin
from sinks.clickhouse.reader import ClickHouseReader
from sinks.qdrant.reader import VectorReader

T = TypeVar("T")


def until(what: str, look: Callable[[], T], seconds: float, every: float = 0.2) -> T:
    """What `look` returns once it is true."""
    deadline = time.monotonic() + seconds
    while True:
        if found := look():
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(every)


@dataclass
class RunningUp:
    """One data directory and the process that runs on it, if any."""

    directory: Path
    arguments: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 240.0) -> None:
        """Start it and wait until its worker takes images and everything has been printed."""
        self.output.parent.mkdir(parents=True, exist_ok=True)
        before = self.output.stat().st_size if self.output.exists() else 0
        with self.output.open("ab") as output:
            self.process = process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "imagewire", "up"),
                    *("--data", str(self.directory), *self.arguments),
                    # Any free one: several stacks run at once, and all would like the usual one.
                    *("--api-port", "0"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.variables},
            )

        def ready() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"up ended with {process.poll()}:\n{self.output.read_text()}")
            # The last line of what `up` prints, once the API answers as well.
            printed = self.output.read_bytes()[before:]
            return (
                b"Ctrl-C stops everything" in printed and find_running(self.directory) is not None
            )

        until("the stack runs", ready, seconds)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; returns its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(180)

    def end(self) -> None:
        """Leave nothing behind, whatever the test did."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def output(self) -> Path:
        return self.directory.with_name(f"{self.directory.name}-output.txt")

    @property
    def settings(self) -> Settings:
        """What clients use: the stack's addresses, and the analyst's rights."""
        return find_connection(self.directory).settings

    def child(self, words: str) -> psutil.Process | None:
        """The child whose command line holds `words`, if it lives."""
        assert self.process is not None
        for child in psutil.Process(self.process.pid).children():
            try:
                if words in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                    return child
            except psutil.NoSuchProcess:
                continue
        return None

    # what its users see

    def get(self, path: str) -> httpx.Response:
        """Ask the worker's HTTP endpoint."""
        record = find_running(self.directory)
        assert record is not None
        url = f"http://127.0.0.1:{record.worker_http_port}{path}"
        return httpx.get(url, trust_env=False, timeout=30)

    def health(self) -> dict[str, Any]:
        """What /healthz says; empty while nobody answers."""
        try:
            answer: dict[str, Any] = self.get("/healthz").json()
        except httpx.HTTPError:
            return {}
        return answer

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """Rows that an analyst reads."""
        with ClickHouseReader(self.settings.clickhouse) as reader:
            rows: list[dict[str, Any]] = reader.query(sql).to_pylist()
        return rows

    def points(self, feed: str) -> int:
        """How many images of a feed can be found by their looks."""

        async def count() -> int:
            async with VectorReader(self.settings.qdrant) as reader:
                return await reader.count(feed=feed)

        return asyncio.run(count())

    def send(self, records: Sequence[Record]) -> list[Origin]:
        """Produce records as any program would; returns where each stands."""

        async def produce() -> list[Origin]:
            producer = AIOKafkaProducer(**self.settings.kafka.producer_options())
            await producer.start()
            try:
                stored = [
                    await producer.send_and_wait(
                        "images", item.value, key=item.key, headers=list(item.headers)
                    )
                    for item in records
                ]
            finally:
                await producer.stop()
            return [Origin(s.topic, s.partition, s.offset, s.timestamp) for s in stored]

        return asyncio.run(produce())

    def wait_for(self, feed: str, images: int, failures: int = 0) -> None:
        """Until a feed has so many images in both stores, and so many dead letters."""

        def settled() -> bool:
            (counted,) = self.rows(
                f"SELECT (SELECT count() FROM images WHERE feed = '{feed}') AS images, "
                f"(SELECT count() FROM failures WHERE feed = '{feed}') AS failures"
            )
            return bool(counted["images"] >= images and counted["failures"] >= failures)

        until(f"{images} images and {failures} failures of {feed}", settled, 400, every=0.5)
        until("as many points", lambda: self.points(feed) >= images, 120)

    def publish(self, publications: Sequence[Publication]) -> None:
        """Publish as the command line does."""

        def failed(_: Publication, outcome: Published | Exception) -> None:
            if isinstance(outcome, Exception):
                raise outcome

        async def send() -> None:
            async with image_publisher(self.settings.kafka) as publisher:
                await publisher.publish_all(publications, Lane.LIVE, failed)

        asyncio.run(send())

    def records(self, topic: str) -> list[KafkaRecord]:
        """Every record that a topic holds now."""
        return asyncio.run(_read(self.settings, topic))

    def committed(self) -> dict[tuple[str, int], int | None]:
        """The offset that the workers committed for each partition of the image topics."""

        async def read() -> dict[tuple[str, int], int | None]:
            consumer = AIOKafkaConsumer(
                group_id=self.settings.stream.group,
                enable_auto_commit=False,
                **self.settings.kafka.client_options(),
            )
            await consumer.start()
            try:
                partitions = [TopicPartition("images", number) for number in range(4)]
                consumer.assign(partitions)
                found = {}
                for tp in partitions:
                    found[(tp.topic, tp.partition)] = await consumer.committed(tp)
                return found
            finally:
                await consumer.stop()

        return asyncio.run(read())


@dataclass(frozen=True)
class Story:
    """What was published, and what each record is expected to become."""

    good: set[str]
    dead: dict[str, tuple[str, str]]


@dataclass(frozen=True)
class Record:
    """What a producer sends."""

    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class KafkaRecord:
    """What a consumer reads."""

    key: bytes | None
    value: bytes | None
    headers: dict[str, str]

    @property
    def fields(self) -> dict[str, Any]:
        decoded: dict[str, Any] = json.loads(self.value or b"{}")
        return decoded


async def _read(settings: Settings, topic: str) -> list[KafkaRecord]:
    options = settings.kafka.client_options()
    return [
        KafkaRecord(
            record.key, record.value, {name: value.decode() for name, value in record.headers}
        )
        for record in await everything_on(options, topic, settings.kafka.partitions)
    ]
