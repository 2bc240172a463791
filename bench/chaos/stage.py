"""The stage on which everything fails: the embedded stack, a proxy before each of its parts, a
producer, web servers, and the account afterwards.

The workers see Kafka, ClickHouse and Qdrant only through the proxies. The producer and the account
go past them, so that what is broken for the workers is whole for those who count.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from bench.chaos import memory
from bench.chaos.account import Account, settle
from bench.chaos.producer import Images, Load, Producer, SteadyLoad
from bench.chaos.proxied_kafka import ProxiedKafka
from bench.chaos.proxy import FaultyProxy
from bench.chaos.reference_server import HOSTS, ReferenceServers
from bench.chaos.report import Row
from imagewire.connection import pointed_at
from imagewire.embedded.ports import LOOPBACK, free_port
from imagewire.embedded.process import ManagedProcess, RestartPolicy
from imagewire.embedded.stack import Stack
from imagewire.settings import Settings, load_settings

_AT_ONCE = RestartPolicy(first_delay=0.1, longest_delay=1.0, healthy_after=5.0, attempts=100_000)

SESSION_TIMEOUT = 6.0
"""Seconds; Kafka's own floor for brokers that are not told otherwise."""
FETCH_TIMEOUT = 5.0
_FINISHED = frozenset({"imagewire_frames_out_total", "imagewire_frames_failed_total"})


class Stage:
    """An async context manager.

    Args:
        directory: for everything that is written.
        objects: whether workers look for objects, which takes most of their time to start.
        settings: more of the workers', by the names of their variables.
        patience: seconds without progress after which what is missing counts as lost.
        report: is told in words what is being done.
    """

    def __init__(
        self,
        directory: Path,
        *,
        rate: float = 12.0,
        objects: bool = True,
        settings: Mapping[str, str] | None = None,
        patience: float = 90.0,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.directory = directory
        self.rate = rate
        self.objects = objects
        self._more_settings = settings or {}
        self.patience = patience
        self.report = report
        self.workers: list[ManagedProcess] = []
        self._exit = AsyncExitStack()
        self._feeds = 0

    async def __aenter__(self) -> Self:
        try:
            await self._start()
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
        self.report("stopping")
        await self._exit.aclose()

    async def _start(self) -> None:
        enter = self._exit.enter_async_context
        logs = self.directory / "data" / "logs"
        self.pictures = self.directory / "pictures"
        self.pictures.mkdir(parents=True)
        self.servers = await enter(ReferenceServers())
        self.kafka = ProxiedKafka(
            self.directory / "kafka", log_directory=logs, second_port=free_port()
        )
        self.kafka_proxy = await enter(FaultyProxy(self.kafka.second_port))
        self.kafka.proxy_port = self.kafka_proxy.port
        self.report("starting Apache Kafka and the stores")
        await self.kafka.start()
        self._exit.push_async_callback(self.kafka.stop)
        self.stack = Stack(
            self.directory / "data",
            self.kafka.address,
            file_roots=[self.pictures],
            restart=_AT_ONCE,
        )
        await enter(self.stack)
        record = self.stack.record
        self.clickhouse_proxy = await enter(FaultyProxy(record.clickhouse_port))
        self.qdrant_proxy = await enter(FaultyProxy(record.qdrant_port))
        self.settings: Settings = pointed_at(load_settings().settings, record)
        await self.add_worker()
        topic = self.settings.kafka.topics.images
        self.producer = await enter(Producer(self.kafka.address, topic))

    async def add_worker(self) -> ManagedProcess:
        """Start one more worker, behind the proxies, and wait until it is ready."""
        self.report(f"starting worker {len(self.workers) + 1}")
        worker = await self.stack.start_worker(self._worker_environment())
        self.workers.append(worker)
        return worker

    def _worker_environment(self) -> dict[str, str]:
        networks = [f"{host}/32" for host in HOSTS]
        return {
            "IMAGEWIRE_KAFKA__BOOTSTRAP_SERVERS": f"{LOOPBACK}:{self.kafka_proxy.port}",
            "IMAGEWIRE_CLICKHOUSE__PORT": str(self.clickhouse_proxy.port),
            "IMAGEWIRE_QDRANT__GRPC_PORT": str(self.qdrant_proxy.port),
            # A server that hangs is given up after 10 s rather than 30, to have more faults in the
            # same time.
            "IMAGEWIRE_CLICKHOUSE__SEND_RECEIVE_TIMEOUT": "10",
            "IMAGEWIRE_STREAM__SESSION_TIMEOUT": str(SESSION_TIMEOUT),
            "IMAGEWIRE_STREAM__DRAIN_TIMEOUT": "10",
            "IMAGEWIRE_FETCH__TIMEOUT": str(FETCH_TIMEOUT),
            "IMAGEWIRE_FETCH__ALLOW_NETWORKS": json.dumps(networks),
            "IMAGEWIRE_FETCH__PORTS": json.dumps([self.servers.port, self.servers.canary_port]),
            # Cheap operators, so that two cores keep up with everything that runs beside them.
            "IMAGEWIRE_OPERATORS__OBJECTS__ENABLED": json.dumps(self.objects),
            "IMAGEWIRE_OPERATORS__TEXT__ENABLED": "false",
            "IMAGEWIRE_OPERATORS__SCORES__ENABLED": "false",
            "IMAGEWIRE_MODELS__THREADS": str(max((os.cpu_count() or 2) // 2, 1)),
            **self._more_settings,
        }

    def worker_pids(self) -> Iterable[int]:
        """Of the workers that live now."""
        return [pid for worker in self.workers if (pid := worker.pid) is not None]

    async def finished_frames(self) -> float:
        """How many images the first worker has finished since it started, by its own metrics; 0
        while it does not answer."""
        url = f"http://{LOOPBACK}:{self.stack.record.worker_http_port}/metrics"
        async with httpx.AsyncClient(trust_env=False, timeout=2.0) as client:
            try:
                text = (await client.get(url)).text
            except httpx.HTTPError:
                return 0.0
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name in _FINISHED
        )

    def new_feed(self, name: str) -> str:
        """A feed that no other scenario uses."""
        self._feeds += 1
        return f"{name}-{self._feeds}"

    def images(self, feed: str, first: int = 0) -> Images:
        """Good pictures of `feed`."""
        return Images(feed, self.pictures, self.servers, first)

    @asynccontextmanager
    async def load(self, feed: str, rate: float | None = None) -> AsyncIterator[Load]:
        """Publish good pictures of `feed` for as long as this context lasts."""
        steady = SteadyLoad(self.producer, self.images(feed), lambda: rate or self.rate)
        async with steady as load:
            yield load

    async def settle(self, load: Load) -> Account:
        """The account of `load`, once everything had time to arrive."""
        self.report(f"accounting for {len(load.confirmed)} images")
        return await settle(self.settings, load, self.patience)

    async def under_load(
        self, fault: str, act: Callable[[Load], Awaitable[None]], rate: float | None = None
    ) -> Row:
        """Publish while `act` breaks things, then account for everything."""
        feed = self.new_feed(fault.split(":")[0].replace(" ", "-"))
        began = time.monotonic()
        async with memory.watching(self.worker_pids) as peak:
            async with self.load(feed, rate) as load:
                await act(load)
            account = await self.settle(load)
        return Row.of(fault, account, peak.mib, time.monotonic() - began)

    async def progress(self, load: Load, more: int, within: float = 240.0) -> None:
        """Wait until `more` further images were published: the load is flowing."""
        wanted = len(load.confirmed) + more
        async with asyncio.timeout(within):
            while len(load.confirmed) < wanted:  # noqa: ASYNC110 - the producer has no event
                await asyncio.sleep(0.1)
