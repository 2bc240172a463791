"""Several worker processes on one machine or device, kept alive by the process that started them.

One Python process cannot feed a fast GPU: what is done for each image outside the networks holds
the interpreter. The processes are ordinary workers in one consumer group, so Kafka shares the
partitions out among them and takes those of a dead one over; the parent only starts, watches and
stops them. Each serves its own /metrics and /healthz, on consecutive ports: a page that adds them
up would hide the one that is ill, and Prometheus adds up better.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagewire.native_environment import native_environment
from imagewire.settings import ConfigurationError, Settings
from models.processors import available_processors

logger = logging.getLogger(__name__)

_LAUNCHER = Path(__file__).parent / "embedded" / "die_with_parent.py"

WRONG_SETTINGS = 2
"""A worker's exit status when what is configured cannot work: starting it again changes nothing."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How a worker that ended by itself is started again.

    Attributes:
        first_delay: seconds before the first restart; doubled for each further one.
        longest_delay: its ceiling, in seconds.
        healthy_after: one that lived so many seconds counts as recovered.
        failures: so many deaths in a row of one worker end them all.
    """

    first_delay: float = 1.0
    longest_delay: float = 30.0
    healthy_after: float = 60.0
    failures: int = 8


class WorkerProcesses:
    """`count` workers. `run` is their life."""

    def __init__(
        self,
        settings: Settings,
        count: int,
        command: Sequence[str],
        patience: Patience | None = None,
    ) -> None:
        """
        Args:
            settings: as the workers will read them; processors, ports and the device's memory are
                shared out where they do not say otherwise.
            command: starts one worker.

        Raises:
            ConfigurationError: there are not enough ports behind `http.port`.
        """
        self._count = count
        self._command = list(command)
        self._patience = patience or Patience()
        self._environments = [environment_of(settings, number, count) for number in range(count)]
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._status = 0

    def stop(self) -> None:
        """Have every worker finish what it has in flight; a second call ends them at once."""
        again = self._stopping.is_set()
        self._stopping.set()
        for process in list(self._running.values()):
            _signal(process, signal.SIGKILL if again else signal.SIGTERM)

    async def run(self) -> int:
        """Keep the workers running until `stop`.

        Returns:
            0 if all ended as they should, else the exit status of the worker that ended them all.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._count):
                    group.create_task(self._keep(number))
        finally:
            for process in self._running.values():
                _signal(process, signal.SIGKILL)
        return self._status

    async def _keep(self, number: int) -> None:
        name = f"worker {number + 1} of {self._count}"
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            status = await self._live(number, name)
            if self._stopping.is_set():
                # Whoever was told to stop says by its status whether it could.
                self._status = self._status or max(status, 0)
                return
            if time.monotonic() - began >= self._patience.healthy_after:
                failures = 0
            failures += 1
            if status == WRONG_SETTINGS or failures >= self._patience.failures:
                logger.error(
                    "%s %s; all workers are stopped",
                    name,
                    "cannot work as it is configured"
                    if status == WRONG_SETTINGS
                    else f"ended {failures} times in a row, the last time {_explained(status)}",
                )
                self._status = status if status > 0 else 1
                self.stop()
                return
            delay = min(
                self._patience.first_delay * 2 ** (failures - 1), self._patience.longest_delay
            )
            logger.warning(
                "%s ended %s; starting it again in %g s", name, _explained(status), delay
            )
            try:
                await asyncio.wait_for(self._stopping.wait(), delay)
            except TimeoutError:
                continue

    async def _live(self, number: int, name: str) -> int:
        """One life of a worker; returns its exit status, negative for a signal."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), "0"),
            *self._command,
            env={**os.environ, **native_environment(os.environ), **self._environments[number]},
            stdin=asyncio.subprocess.DEVNULL,
            # Ctrl-C in a terminal reaches this process alone, which passes it on once; a worker
            # that got it twice would take the second for the wish to stop at once.
            start_new_session=True,
        )
        self._running[number] = process
        if self._stopping.is_set():  # while it was being started
            _signal(process, signal.SIGTERM)
        port = self._environments[number].get("IMAGEWIRE_HTTP__PORT")
        where = f", /metrics and /healthz on port {port}" if port else ""
        logger.info("%s is process %d%s", name, process.pid, where)
        try:
            return await process.wait()
        finally:
            if process.returncode is not None:
                del self._running[number]


def environment_of(settings: Settings, number: int, count: int) -> Mapping[str, str]:
    """What worker `number` (from 0) of `count` has to itself, as variables that name settings.

    Raises:
        ConfigurationError: its port would be beyond the last one there is.
    """
    share = max(1, available_processors() // count)
    found = {}
    if settings.http.enabled and settings.http.port:
        port = settings.http.port + number
        if port > 65_535:
            raise ConfigurationError(
                f"http.port is {settings.http.port}, and each of {count} workers needs one of its "
                "own from there on; choose a lower one, or 0 for any free ones"
            )
        found["IMAGEWIRE_HTTP__PORT"] = str(port)
    if settings.models.threads is None:
        found["IMAGEWIRE_MODELS__THREADS"] = str(share)
    if settings.decode.threads is None:
        found["IMAGEWIRE_DECODE__THREADS"] = str(share)
    if settings.models.memory_share is not None:
        found["IMAGEWIRE_MODELS__MEMORY_SHARE"] = f"{settings.models.memory_share / count:.6f}"
    return found


async def run_workers(workers: WorkerProcesses) -> int:
    """Run them until SIGTERM or Ctrl-C; a second signal ends them at once."""
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        logger.info("stopping the workers; the same signal again stops them at once")
        workers.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return await workers.run()


def _signal(process: asyncio.subprocess.Process, number: int) -> None:
    if process.returncode is None:
        try:
            process.send_signal(number)
        except ProcessLookupError:  # it ended this moment
            return


def _explained(status: int) -> str:
    if status < 0:
        return f"by {signal.Signals(-status).name}"
    return f"with exit status {status}"
