"""The stack that the bench measures on: a broker, both stores, and workers with chosen settings.

Topics are filled before anything is timed, and what came out is read afterwards from the verdicts'
own Kafka timestamps, so that measuring costs nothing while the clock runs. Each run has topics and
a consumer group of its own (`Route`), so nothing is left over from the one before.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import httpx
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from prometheus_client.parser import text_string_to_metric_families

from bench.processor_time import cpu_seconds
from imagewire.connection import pointed_at
from imagewire.embedded.ports import LOOPBACK, free_port
from imagewire.embedded.process import ManagedProcess
from imagewire.embedded.stack import Stack
from imagewire.native_environment import native_environment
from imagewire.settings import Settings, load_settings

FEED = "bench"
PARTITIONS = 4
WORKER_COMMAND = ("-m", "imagewire", "worker")
_FINISHED = ("imagewire_frames_out_total", "imagewire_frames_failed_total")
_REPORTED = ("images", "bulk", "findings", "verdicts", "review", "failed")


class BenchError(Exception):
    """The bench cannot go on: the message says what did not happen."""


class Record(NamedTuple):
    """One record for a topic of images."""

    value: bytes
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


def reference(image_id: str, uri: str, feed: str = FEED) -> Record:
    """A record that says where an image is."""
    value = msgspec.json.encode({"id": image_id, "uri": uri, "feed": feed})
    return Record(value, image_id.encode())


def inline(image_id: str, content: bytes, feed: str = FEED) -> Record:
    """A record that is the image."""
    headers = [
        ("image-id", image_id.encode()),
        ("feed", feed.encode()),
        ("content-type", b"image/jpeg"),
    ]
    return Record(content, image_id.encode(), headers)


@dataclass(frozen=True, slots=True)
class Route:
    """Topics and the consumer group of one run."""

    prefix: str

    @classmethod
    def new(cls, name: str) -> Route:
        """A route that no other run uses."""
        return cls(f"{name}-{secrets.token_hex(3)}")

    @property
    def images(self) -> str:
        return f"{self.prefix}.images"

    @property
    def bulk(self) -> str:
        return f"{self.prefix}.bulk"

    @property
    def verdicts(self) -> str:
        return f"{self.prefix}.verdicts"

    @property
    def group(self) -> str:
        return self.prefix

    def environment(self) -> dict[str, str]:
        """Settings that send a worker this way."""
        return {"IMAGEWIRE_STREAM__GROUP": self.group} | {
            f"IMAGEWIRE_KAFKA__TOPICS__{name.upper()}": f"{self.prefix}.{name}"
            for name in _REPORTED
        }


class Verdict(NamedTuple):
    """One record of a topic of verdicts; `at` is its Kafka timestamp in Unix seconds, which is when
    the worker handed it to its producer."""

    image_id: str
    at: float


class RunningWorker:
    """A worker that is ready, seen from outside."""

    def __init__(self, process: ManagedProcess, route: Route, port: int) -> None:
        self.process = process
        self.route = route
        self._client = httpx.AsyncClient(
            base_url=f"http://{LOOPBACK}:{port}", trust_env=False, verify=False, timeout=10.0
        )

    @property
    def pid(self) -> int:
        """
        Raises:
            BenchError: the worker has died; the message has the end of its log.
        """
        pid = self.process.pid
        if pid is None:
            raise BenchError(f"the worker died; the end of its log:\n{self.process.log_tail()}")
        return pid

    def cpu_seconds(self) -> float:
        """Of the worker and its children, since it started."""
        return cpu_seconds(self.pid)

    async def healthy(self) -> bool:
        """Whether it takes images."""
        try:
            return (await self._client.get("/healthz")).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    async def exposition(self) -> str:
        """Its metrics as Prometheus gets them."""
        return (await self._client.get("/metrics")).text

    async def metrics(self) -> dict[str, float]:
        """Every metric's samples summed over their labels, by sample name."""
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(await self.exposition()):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        return sums

    async def finished(self) -> int:
        """Images that are safe in every sink, as findings or as dead letters, since it started."""
        metrics = await self.metrics()
        return int(sum(metrics.get(name, 0.0) for name in _FINISHED))

    async def wait_until_finished(
        self, count: int, *, within: float = 300.0, every: float = 0.25
    ) -> None:
        """Wait until `count` images in all are safe in every sink.

        Raises:
            BenchError: it took longer than `within` seconds, or the worker died.
        """
        deadline = time.monotonic() + within
        while (finished := await self.finished()) < count:
            if time.monotonic() > deadline:
                raise BenchError(
                    f"{finished} of {count} images were finished after {within:g} s; the end of "
                    f"the worker's log:\n{self.process.log_tail()}"
                )
            _ = self.pid
            await asyncio.sleep(every)

    async def close(self) -> None:
        await self._client.aclose()


class Testbed:
    """The embedded stack, without workers at first. An async context manager."""

    __test__ = False  # pytest takes any class of this name for a test

    def __init__(
        self,
        directory: Path,
        *,
        file_roots: Sequence[Path] = (),
        broker: str | None = None,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        """
        Args:
            directory: for everything that is written; the caller removes it.
            file_roots: folders that workers may read `file:` references from.
            broker: "apache", "tansu" or None, which takes Apache Kafka where it can run.
            report: is told in words what is being done.
        """
        self.directory = directory
        self.stack = Stack(
            directory / "data", broker, file_roots=file_roots, restart=None, report=report
        )
        self.report = report

    async def __aenter__(self) -> Self:
        self.report("starting the broker and the stores")
        await self.stack.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stack.stop()

    @property
    def bootstrap(self) -> str:
        """The broker's address."""
        return self.stack.broker.address

    @property
    def logs(self) -> Path:
        """The folder of the children's logs."""
        return self.stack.directory.logs

    @property
    def settings(self) -> Settings:
        """For reading what is in the stores, as the analyst."""
        return pointed_at(load_settings().settings, self.stack.record)

    def cpu_seconds(self) -> dict[str, float]:
        """Of the broker and the stores, by their names, since they started."""
        return {
            status.name: cpu_seconds(status.pid)
            for status in self.stack.status()
            if status.pid is not None
        }

    async def create_topics(self, *names: str, partitions: int = PARTITIONS) -> None:
        """Make topics that are not there yet."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(name, partitions, 1) for name in names])
        finally:
            await admin.close()

    async def fill(
        self, topic: str, records: Iterable[Record], *, partitions: int = PARTITIONS
    ) -> int:
        """Write records to the partitions of a topic by turns, as fast as the broker takes them.

        Returns:
            How many.
        """
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap,
            acks=1,
            linger_ms=5,
            max_batch_size=512 * 1024,
            max_request_size=48 * 1024 * 1024,
        )
        await producer.start()
        count = 0
        try:
            for count, record in enumerate(records, 1):
                await producer.send(
                    topic,
                    record.value,
                    key=record.key,
                    headers=list(record.headers),
                    partition=count % partitions,
                )
            await producer.flush()
        finally:
            await producer.stop()
        return count

    def worker_environment(
        self, route: Route, settings: Mapping[str, str], port: int
    ) -> dict[str, str]:
        """The whole environment of a worker whose HTTP endpoint is on `port`."""
        inherited = {key: value for key, value in os.environ.items() if "IMAGEWIRE_" not in key}
        return {
            **inherited,
            **native_environment(inherited),
            **self.stack.environment(),
            **route.environment(),
            "IMAGEWIRE_HTTP__HOST": LOOPBACK,
            "IMAGEWIRE_HTTP__PORT": str(port),
            # The photos are few and come again and again: each is to be analysed every time.
            "IMAGEWIRE_REUSE__IDENTICAL": "false",
            **settings,
        }

    @asynccontextmanager
    async def worker(
        self,
        route: Route,
        settings: Mapping[str, str] | None = None,
        *,
        command: Sequence[str] = WORKER_COMMAND,
        name: str = "worker",
    ) -> AsyncIterator[RunningWorker]:
        """A worker process on `route`, from ready to stopped.

        Args:
            settings: on top of the stack's and the route's, by their variables' names.
            command: arguments of the Python that runs it; another than the product's own must
                serve the same HTTP endpoint.
            name: of its log file.

        Raises:
            imagewire.embedded.process.ProcessError: it did not start.
        """
        port = free_port()
        process = ManagedProcess(
            name,
            [sys.executable, *command],
            log_directory=self.logs,
            environment=self.worker_environment(route, settings or {}, port),
            ready=lambda: _healthy(port),
            start_timeout=240.0,
            stop_timeout=60.0,
        )
        running = RunningWorker(process, route, port)
        await process.start()
        try:
            yield running
        finally:
            await running.close()
            await process.stop()

    async def verdicts(
        self, topic: str, count: int, *, skip: int = 0, within: float = 60.0
    ) -> list[Verdict]:
        """Verdicts of a topic in the order of their timestamps: `count`, after the first `skip`.

        Call it after the run: reading costs time that the worker would miss.

        Raises:
            BenchError: there were not so many within `within` seconds.
        """
        # Without a group it is given all partitions of its topic.
        consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=self.bootstrap,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        found: list[Verdict] = []
        deadline = time.monotonic() + within
        try:
            while len(found) < skip + count:
                if time.monotonic() > deadline:
                    raise BenchError(
                        f"{topic} has {len(found)} verdicts, and {skip + count} were expected"
                    )
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += [
                        Verdict((record.key or b"").decode(), record.timestamp / 1000)
                        for record in records
                    ]
        finally:
            await consumer.stop()
        found.sort(key=lambda verdict: verdict.at)
        return found[skip : skip + count]


async def _healthy(port: int) -> bool:
    # Loading certificates that nobody needs would take 30 ms of processor time, 20 times a second.
    async with httpx.AsyncClient(trust_env=False, verify=False, timeout=2.0) as client:
        try:
            answer = await client.get(f"http://{LOOPBACK}:{port}/healthz")
        except httpx.HTTPError:
            return False
        return answer.status_code == httpx.codes.OK
