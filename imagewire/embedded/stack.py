"""The whole stack on one machine: a broker, both stores, and workers, as children of this process.

Every part is a process of its own: the engines hold the interpreter's lock, want memory settings
of their own, and may be killed without the others. They come up together; they go down in the
order in which data flows, workers first, so that what is in flight is written and acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from imagewire.embedded.answering import grpc_answers, http_ok
from imagewire.embedded.api_process import ApiPlace, api_process, inherited, reachable_host
from imagewire.embedded.broker import Broker
from imagewire.embedded.broker_choice import choose_broker
from imagewire.embedded.datadir import DataDirectory, RunRecord, own_start_time
from imagewire.embedded.errors import EmbeddedError
from imagewire.embedded.ports import FIRST_PORT, LOOPBACK, free_port, is_free
from imagewire.embedded.process import (
    STANDING_BACK,
    ManagedProcess,
    ProcessError,
    ProcessStatus,
    RestartPolicy,
)
from imagewire.native_environment import native_environment
from imagewire.settings import load_settings

logger = logging.getLogger(__name__)

WRITER, ANALYST = "writer", "analyst"

# An engine is up within 2 s; but not where dozens of processes start at once on few cores.
_STORE_START_TIMEOUT = 180.0
# A worker loads its models before it is ready, and finishes what is in flight before it ends.
_WORKER_START_TIMEOUT = 240.0
_WORKER_STOP_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class StackPorts:
    """Ports that must be these and no others; 0 takes any free one, None the last one."""

    broker: int | None = None
    clickhouse: int | None = None
    qdrant: int | None = None
    worker_http: int | None = None
    api: int | None = None
    sql: int | None = None
    """For ClickHouse clients of the user's own, which may only read; there is none without it."""


class Stack:
    """A broker, ClickHouse's engine, Qdrant's engine and workers over one data directory.

        async with Stack(Path("imagewire-data")) as stack:
            await stack.start_worker()

    Args:
        directory: where everything is kept; see `imagewire.embedded.datadir`.
        broker_spec: "apache", "tansu", "HOST:PORT", or None to choose.
        ports: those that are fixed.
        file_roots: folders that workers may read `file:` references from; none by default.
        restart: what to do when a child dies; None leaves it dead.
        report: is told in words what is being done, for a progress line.
    """

    def __init__(
        self,
        directory: Path,
        broker_spec: str | None = None,
        *,
        ports: StackPorts | None = None,
        file_roots: Sequence[Path] = (),
        restart: RestartPolicy | None = RestartPolicy(),  # noqa: B008 - it is immutable
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.directory = DataDirectory(directory)
        self._broker_spec = broker_spec
        self._ports = ports or StackPorts()
        if self._ports.sql == 0:
            self._ports = replace(self._ports, sql=free_port())
        self._file_roots = [str(root.resolve()) for root in file_roots]
        self._restart = restart
        self._report = report
        self._broker: Broker | None = None
        self._reason = ""
        self._stores: dict[str, ManagedProcess] = {}
        self._workers: list[ManagedProcess] = []
        self._worker_http_port: int | None = None
        self._api: ManagedProcess | None = None
        self._api_place: ApiPlace | None = None

    @property
    def broker(self) -> Broker:
        """The broker, once the stack has started.

        Raises:
            EmbeddedError: the stack has not started.
        """
        if self._broker is None:
            raise EmbeddedError("the stack has no broker before start()")
        return self._broker

    @property
    def broker_reason(self) -> str:
        """Which broker it is, why, and what becomes of records, in one sentence."""
        return self._reason

    async def start(self) -> None:
        """Hold the directory and bring up the broker and the stores.

        Raises:
            DirectoryHeldError: another stack runs on the directory.
            EmbeddedError: a part did not come up. Nothing is left running, nothing is held.
        """
        self.directory.acquire()
        try:
            choice = choose_broker(
                self._broker_spec,
                directory=self.directory.kafka,
                log_directory=self.directory.logs,
                port=lambda: self.directory.port("broker", self._ports.broker),
                restart=self._restart,
            )
            self._broker, self._reason = choice.broker, choice.reason
            self._report(f"broker: {self._reason}")
            self._stores = {"clickhouse": self._clickhouse(), "qdrant": self._qdrant()}
            await _together(self._broker.start, *(store.start for store in self._stores.values()))
            self._publish()
        except BaseException:
            await self.stop()
            raise

    async def start_worker(
        self, extra_environment: Mapping[str, str] | None = None
    ) -> ManagedProcess:
        """Start one worker of `imagewire worker` on this stack and wait until it is healthy.

        Args:
            extra_environment: settings on top of `environment()`, by their variable names.

        Raises:
            ProcessError: it did not start; the message has the tail of its log.
            ConfigurationError: the settings are wrong.
        """
        number = len(self._workers) + 1
        suffix = "" if number == 1 else f"-{number}"
        port = self.directory.port(
            f"worker_http{suffix}", self._ports.worker_http if number == 1 else None
        )
        # The user may have asked for a key, in the file or the environment.
        key = load_settings().settings.http.key
        own = self.environment()
        worker = ManagedProcess(
            f"worker{suffix}",
            [sys.executable, "-m", "imagewire", "worker"],
            log_directory=self.directory.logs,
            environment={
                # The stores are the stack's own, and so are their secrets, whatever file names one.
                **inherited(own),
                **native_environment(os.environ),
                **own,
                "IMAGEWIRE_HTTP__ENABLED": "true",
                "IMAGEWIRE_HTTP__HOST": LOOPBACK,
                "IMAGEWIRE_HTTP__PORT": str(port),
                **(extra_environment or {}),
            },
            ready=lambda: http_ok(f"http://{LOOPBACK}:{port}/healthz", key),
            start_timeout=_WORKER_START_TIMEOUT,
            stop_timeout=_WORKER_STOP_TIMEOUT,
            restart=self._restart,
        )
        self._report(f"worker{suffix}: loading models")
        await worker.start()
        self._workers.append(worker)
        if number == 1:
            self._worker_http_port = port
        self._publish()
        return worker

    async def start_api(self) -> ManagedProcess:
        """Start `imagewire serve` on this stack and wait until it answers. The stack does without
        it, should it die for good.

        Raises:
            ProcessError: it did not start; the message has the tail of its log.
            ConfigurationError: the settings are wrong.
        """
        settings = load_settings().settings.api
        # The usual port where that is free; whichever it becomes, it is kept.
        self.directory.identity.ports.setdefault("api", settings.port or FIRST_PORT)
        self._report("api: starting")
        try:
            return await self._start_api(settings.host)
        except ProcessError:
            # Between the choice of a port and its use another program may have taken it: then
            # another is chosen, unless it was asked for. Else once more, as after any death.
            if self._ports.api is not None and not is_free(self._ports.api):
                raise
            self._report("api: starting once more")
            return await self._start_api(settings.host)

    async def _start_api(self, host: str) -> ManagedProcess:
        place = ApiPlace(reachable_host(host), self.directory.port("api", self._ports.api))
        api = self._api = api_process(
            place,
            self.environment()
            | {
                "IMAGEWIRE_CLICKHOUSE__USERNAME": ANALYST,
                "IMAGEWIRE_CLICKHOUSE__PASSWORD": self.directory.identity.analyst_password,
            },
            log_directory=self.directory.logs,
            restart=self._restart,
        )
        await api.start()
        self._api_place = place
        self._publish()
        return api

    async def stop(self) -> None:
        """Stop workers, then stores, then the broker, and let go of the directory."""
        try:
            away = [self._api.stop] if self._api is not None else []
            await _together(*away, *(worker.stop for worker in self._workers))
            await _together(*(store.stop for store in self._stores.values()))
            if self._broker is not None:
                await self._broker.stop()
        finally:
            self._workers, self._stores = [], {}
            self._api = self._api_place = self._worker_http_port = None
            self.directory.release()

    def environment(self) -> dict[str, str]:
        """The settings that point a worker to this stack, as `IMAGEWIRE_...` variables.

        They hold secrets: hand them to a child, never print them.
        """
        identity = self.directory.identity
        return {
            "IMAGEWIRE_KAFKA__BOOTSTRAP_SERVERS": self.broker.address,
            "IMAGEWIRE_CLICKHOUSE__HOST": LOOPBACK,
            "IMAGEWIRE_CLICKHOUSE__PORT": str(identity.ports["clickhouse"]),
            "IMAGEWIRE_CLICKHOUSE__USERNAME": WRITER,
            "IMAGEWIRE_CLICKHOUSE__PASSWORD": identity.writer_password,
            "IMAGEWIRE_QDRANT__HOST": LOOPBACK,
            "IMAGEWIRE_QDRANT__GRPC_PORT": str(identity.ports["qdrant"]),
            "IMAGEWIRE_QDRANT__API_KEY": identity.qdrant_api_key,
            **(
                {"IMAGEWIRE_FETCH__FILE_ROOTS": json.dumps(self._file_roots)}
                if self._file_roots
                else {}
            ),
            # It keeps a held fetch to its end even when a record comes.
            **({"IMAGEWIRE_STREAM__FETCH_MAX_WAIT": "0.02"} if self.broker.name == "tansu" else {}),
        }

    @property
    def record(self) -> RunRecord:
        """Where this stack answers, as `run.json` has it."""
        identity = self.directory.identity
        return RunRecord(
            pid=os.getpid(),
            started=own_start_time(),
            broker=self.broker.name,
            broker_address=self.broker.address,
            clickhouse_host=LOOPBACK,
            clickhouse_port=identity.ports["clickhouse"],
            qdrant_host=LOOPBACK,
            qdrant_port=identity.ports["qdrant"],
            writer_user=WRITER,
            writer_password=identity.writer_password,
            analyst_user=ANALYST,
            analyst_password=identity.analyst_password,
            qdrant_api_key=identity.qdrant_api_key,
            worker_http_port=self._worker_http_port,
            pids={status.name: status.pid for status in self.status() if status.pid is not None},
            file_roots=self._file_roots,
            api_host=self._api_place.host if self._api_place else None,
            api_port=self._api_place.port if self._api_place else None,
            sql_port=self._ports.sql,
        )

    def status(self) -> list[ProcessStatus]:
        """The state of every child, broker first."""
        return [process.status() for process in self._processes()]

    async def wait_for_failure(self) -> ProcessStatus:
        """Return when a child has died and will not be started again."""
        # Not the API, which nothing else needs: its death is logged, and `status` says so.
        needed = [process for process in self._processes() if process is not self._api]
        waits = [asyncio.create_task(process.wait()) for process in needed]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for wait in waits:
                wait.cancel()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    # its parts

    def _processes(self) -> list[ManagedProcess]:
        broker = self._broker.process if self._broker is not None else None
        api = [self._api] if self._api is not None else []
        return [*([broker] if broker else []), *self._stores.values(), *self._workers, *api]

    def _publish(self) -> None:
        self.directory.publish(self.record)
        for process in self._processes():
            process.restarted = self._publish_again

    def _publish_again(self) -> None:
        """The record names the children's processes, of which one is another now."""
        try:
            self.directory.publish(self.record)
        except OSError as error:  # such as a full disk, which is no reason to stop watching
            logger.warning("%s/run.json is out of date: %s", self.directory.path, error)

    def _clickhouse(self) -> ManagedProcess:
        port = self.directory.port("clickhouse", self._ports.clickhouse)
        guests = [] if self._ports.sql is None else ["--guest-port", str(self._ports.sql)]
        identity = self.directory.identity
        return ManagedProcess(
            "clickhouse",
            [*_front("clickhouse_front", self.directory.clickhouse, port), *guests],
            log_directory=self.directory.logs,
            environment={
                **os.environ,
                "IMAGEWIRE_FRONT_WRITER_PASSWORD": identity.writer_password,
                "IMAGEWIRE_FRONT_ANALYST_PASSWORD": identity.analyst_password,
            },
            ready=lambda: http_ok(f"http://{LOOPBACK}:{port}/ping"),
            start_timeout=_STORE_START_TIMEOUT,
            restart=self._restart,
            niceness=STANDING_BACK,
        )

    def _qdrant(self) -> ManagedProcess:
        port = self.directory.port("qdrant", self._ports.qdrant)
        identity = self.directory.identity
        return ManagedProcess(
            "qdrant",
            [
                *_front("qdrant_front", self.directory.qdrant, port),
                *("--api-key-variable", "IMAGEWIRE_FRONT_API_KEY"),
            ],
            log_directory=self.directory.logs,
            environment={**os.environ, "IMAGEWIRE_FRONT_API_KEY": identity.qdrant_api_key},
            ready=lambda: grpc_answers(f"{LOOPBACK}:{port}", identity.qdrant_api_key),
            start_timeout=_STORE_START_TIMEOUT,
            restart=self._restart,
            niceness=STANDING_BACK,
        )


def _front(module: str, path: Path, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", f"imagewire.embedded.{module}"),
        *("--path", str(path), "--host", LOOPBACK, "--port", str(port)),
    ]


async def _together(*actions: Callable[[], Awaitable[None]]) -> None:
    """Run all at once; if one fails, cancel the others, wait for them, and raise its error."""

    async def act(action: Callable[[], Awaitable[None]]) -> None:
        await action()

    try:
        async with asyncio.TaskGroup() as group:
            for action in actions:
                group.create_task(act(action))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
