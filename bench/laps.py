"""Contestants that run laps by turns, each in a process that stays and is idle in between.

Comparisons are interleaved (A B C A B C), as a machine's speed drifts. Starting a process anew for
every lap would take longer than the lap: importing torch alone takes seconds. So a contestant is a
child process that loads everything once, then waits for a line of JSON on its standard input, runs
a lap, and answers with a line of JSON. While it waits it holds no connection and does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from imagewire.native_environment import native_environment

_ANSWER = "lap: "
"""Before an answer, as libraries print to standard output too."""


class LapError(Exception):
    """A contestant failed: the message has the end of its log."""


class Contestant:
    """The process, seen from the bench. An async context manager.

    Args:
        name: of its log, `<name>.log`.
        arguments: of the Python that runs it; the program calls `run_laps`.
        environment: on top of this process's own, from which Imagewire's settings are left out.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        log_directory: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._arguments = arguments
        self._log_path = log_directory / f"{name}.log"
        own = {key: value for key, value in os.environ.items() if "IMAGEWIRE_" not in key}
        self._environment = {**own, **native_environment(own), **(environment or {})}
        self._process: asyncio.subprocess.Process | None = None
        self._log: IO[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    async def __aenter__(self) -> Self:
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        self._log = self._log_path.open("wb")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
            env=self._environment,
            limit=1 << 24,
            # Ctrl-C is for the bench, which then ends its children.
            process_group=0,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            assert process.stdin is not None
            with contextlib.suppress(ConnectionError):
                process.stdin.close()
            try:
                async with asyncio.timeout(5.0 if error is None else 0.1):
                    await process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if self._log is not None:
            self._log.close()

    async def lap(self, within: float = 300.0, **order: Any) -> dict[str, Any]:
        """Run one lap.

        Args:
            order: what the program is told, as JSON.

        Raises:
            LapError: the process died, or did not answer within `within` seconds.
        """
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(order).encode() + b"\n")
            await process.stdin.drain()
            async with asyncio.timeout(within):
                while line := (await process.stdout.readline()).decode():
                    if line.startswith(_ANSWER):
                        answer: dict[str, Any] = json.loads(line.removeprefix(_ANSWER))
                        return answer
            what = "died"
        except (TimeoutError, ConnectionError) as error:
            what = f"gave no answer ({type(error).__name__})"
        tail = self._log_path.read_text(errors="replace").splitlines()[-30:]
        raise LapError("\n".join([f"{self.name} {what}; the end of its log:", *tail]))


def run_laps(lap: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> None:
    """The contestant's side: run a lap, each in an event loop of its own, for every line that comes
    until there are no more."""
    import uvloop

    for line in sys.stdin:
        answer = uvloop.run(lap(json.loads(line)))
        sys.stdout.write(f"{_ANSWER}{json.dumps(answer)}\n")
        sys.stdout.flush()


async def serve_laps(lap: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> None:
    """As `run_laps`, in the event loop that runs: for contestants that are kept loaded in one."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        answer = await lap(json.loads(line))
        sys.stdout.write(f"{_ANSWER}{json.dumps(answer)}\n")
        sys.stdout.flush()


class Stopwatch:
    """Times the images between a warm-up and the last: wall clock, and this process's CPU time."""

    def __init__(self, warm_up: int, last: int) -> None:
        """`warm_up` and `last`: which image, counted from 1, starts and stops it."""
        self.done = asyncio.Event()
        self.count = 0
        self._warm_up = warm_up
        self._last = last
        self._marks: list[tuple[int, float, float]] = []

    def tick(self, images: int = 1) -> None:
        """So many images more are finished."""
        self.count += images
        if not self._marks:
            if self.count >= self._warm_up:
                self._mark()
        elif len(self._marks) == 1 and self.count >= self._last and images:
            self._mark()
            self.done.set()

    def _mark(self) -> None:
        self._marks.append((self.count, time.perf_counter(), time.process_time()))

    def result(self) -> dict[str, float]:
        """`images`, their `seconds` and the `cpu_seconds` of all threads of this process."""
        (first, began, cpu_before), (last, ended, cpu_after) = self._marks
        return {
            "images": last - first,
            "seconds": ended - began,
            "cpu_seconds": cpu_after - cpu_before,
        }
