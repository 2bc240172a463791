"""Child processes that are started, watched, restarted and never left behind.

The embedded stack is made of programs of other people (Kafka, ClickHouse's engine, Qdrant's
engine) and of workers, each in a process of its own. A child has its own process group, so that
Ctrl-C in the terminal reaches only the parent, which then stops the children in order; on Linux
the kernel kills it when the parent dies, so that even `kill -9` of the parent leaves no orphan.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from imagewire.embedded.disk_space import disk_trouble, full_disk
from imagewire.embedded.errors import EmbeddedError

logger = logging.getLogger(__name__)

State = Literal["new", "starting", "running", "restarting", "stopped", "failed"]

# How often a child's pulse is felt. A death is noticed within this time; at 20 looks a second the
# cost is not measurable.
POLL_SECONDS = 0.05

# A child's log is moved to `<name>.log.1` when it grows beyond this, so that a stack which is left
# running for months keeps at most twice as much per child.
LOG_LIMIT_BYTES = 32 * 1024 * 1024

# For a broker and stores that share their processors with models. They use a tenth of the time, but
# each time one of them woke up, it took a core from a model that was at work: without reading text
# two cores gave 53 images/s, with this 61 (medians of six laps by turns). A tenth of a core is left
# to them however busy the models are.
STANDING_BACK = 10

_LAUNCHER = Path(__file__).with_name("die_with_parent.py")


class ProcessError(EmbeddedError):
    """A child did not start, or gave up: the message carries the tail of its log."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How a child that dies unexpectedly is started again.

    Attributes:
        first_delay: seconds before the first restart; doubled for each further one.
        longest_delay: the ceiling of that delay, in seconds.
        healthy_after: a child that lived so many seconds counts as recovered: its next death
            begins a new series.
        attempts: restarts in one series before the child is given up as `failed`. Deaths on a full
            disk do not exhaust them: it is tried again until there is room.
    """

    first_delay: float = 0.5
    longest_delay: float = 30.0
    healthy_after: float = 60.0
    attempts: int = 8


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """What is known of a child at one moment.

    Attributes:
        since: Unix time at which the current state began.
        exit_code: of the last run; negative is the number of the signal that ended it.
    """

    name: str
    state: State
    pid: int | None
    since: float
    restarts: int
    exit_code: int | None


class ManagedProcess:
    """One child process, from its start to its end.

    Call `start` from a thread that outlives the child, usually the main thread: Linux ties the
    parent-death signal to the thread that forked, not to the process.

    Args:
        name: how the child is called in messages, and its log file `<name>.log`.
        command: program and arguments.
        log_directory: where its standard output and error go. An earlier log is kept as `.log.1`.
        environment: its whole environment; by default that of this process.
        ready: tells whether the child serves; asked again until it says so. Without one, a child
            is ready as soon as it runs.
        start_timeout: seconds within which `ready` must say yes.
        stop_timeout: seconds between SIGTERM and SIGKILL.
        restart: what to do when it dies unexpectedly; by default nothing, and it is `failed`.
        niceness: by how much it stands back where processors are short, 0 to 19 (setpriority(2)).

    Attributes:
        restarted: is called when the child is ready again after a death; it must not raise.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log_directory: Path,
        environment: Mapping[str, str] | None = None,
        ready: Callable[[], Awaitable[bool]] | None = None,
        start_timeout: float = 60.0,
        stop_timeout: float = 20.0,
        restart: RestartPolicy | None = None,
        niceness: int = 0,
    ) -> None:
        self.name = name
        self.command = tuple(command)
        self.log_path = log_directory / f"{name}.log"
        self._environment = dict(environment) if environment is not None else None
        self._ready = ready
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._restart = restart
        self._niceness = niceness
        self.restarted: Callable[[], None] = lambda: None
        self._popen: subprocess.Popen[bytes] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._state: State = "new"
        self._since = time.time()
        self._entered = time.monotonic()
        self._restarts = 0
        self._finished = asyncio.Event()
        self._group: int | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id while it lives, else None."""
        return self._popen.pid if self._popen is not None and self._popen.poll() is None else None

    @property
    def running(self) -> bool:
        """Whether the child is up and was ready."""
        return self._state == "running" and self.pid is not None

    def status(self) -> ProcessStatus:
        """The child's state, process id, restarts and last exit code."""
        exit_code = self._popen.poll() if self._popen is not None else None
        return ProcessStatus(
            self.name, self._state, self.pid, self._since, self._restarts, exit_code
        )

    async def start(self) -> None:
        """Start the child and wait until it is ready.

        Raises:
            ProcessError: the program is missing, died, or was not ready in time. Nothing is left
                running then.
        """
        if self.pid is not None:
            raise ProcessError(f"{self.name} is running already as process {self.pid}")
        await self._cancel_watcher()
        self._finished.clear()
        self._rotate_log()
        try:
            await self._launch()
        except BaseException:
            # Also when the start is cancelled: a child that nobody watches must not stay.
            await self._end()
            self._enter("failed")
            self._finished.set()
            raise
        self._watcher = asyncio.create_task(self._watch(), name=f"watch {self.name}")

    async def stop(self) -> None:
        """Ask the child to end, wait `stop_timeout`, then kill it and its process group."""
        await self._cancel_watcher()
        await self._end()
        if self._state not in ("new", "failed"):
            self._enter("stopped")
        self._finished.set()

    def kill(self) -> None:
        """Kill the child's whole process group at once, as a power cut would.

        Without a restart policy the child is `failed` afterwards; `start` brings it back.
        """
        if self._popen is not None and self._popen.poll() is None:
            self._kill_group()
            self._popen.wait()

    async def wait(self) -> ProcessStatus:
        """Return when the child has ended for good: stopped, or dead and given up."""
        await self._finished.wait()
        return self.status()

    def log_tail(self, lines: int = 30) -> str:
        """The last `lines` lines that the child wrote; empty if it wrote none."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(0, log.tell() - 64 * 1024))
                text = log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    # the life of one run

    async def _launch(self) -> None:
        self._enter("starting")
        self._popen = self._spawn()
        self._group = self._popen.pid
        deadline = time.monotonic() + self._start_timeout
        while True:
            if (code := self._popen.poll()) is not None:
                raise self._error(f"ended with {self._ended(code)} before it was ready")
            if self._ready is None or await self._is_ready(deadline):
                break
            if time.monotonic() > deadline:
                raise self._error(f"was not ready within {self._start_timeout:g} s")
            await asyncio.sleep(POLL_SECONDS)
        self._enter("running")

    def _spawn(self) -> subprocess.Popen[bytes]:
        program = shutil.which(self.command[0])
        if program is None:
            raise ProcessError(
                f"{self.name} cannot be started: there is no program {self.command[0]}, or it "
                "may not be executed; install it, or check the path and its permissions"
            )
        launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid())]
        launcher.append(str(self._niceness))
        try:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            opened = _open_log(self.log_path)
        except OSError as error:  # such as a disk that has turned read-only
            raise ProcessError(
                f"{self.name} cannot be started: its log {self.log_path} cannot be written: "
                f"{error.strerror}"
            ) from error
        with opened as log:
            return subprocess.Popen(  # noqa: S603 - commands are the stack's own
                [*launcher, program, *self.command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                process_group=0,
            )

    async def _is_ready(self, deadline: float) -> bool:
        assert self._ready is not None
        try:
            async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
                return await self._ready()
        except TimeoutError:
            return False

    async def _watch(self) -> None:
        """Notice the child's death, and restart it as the policy says."""
        failures = 0
        while True:
            assert self._popen is not None
            looked_at_log = time.monotonic()
            while (code := self._popen.poll()) is None:
                await asyncio.sleep(POLL_SECONDS)
                if time.monotonic() - looked_at_log > 10:
                    looked_at_log = time.monotonic()
                    self._bound_log_or_say_why()
            self._kill_group()
            policy = self._restart
            lived = time.monotonic() - self._entered
            if policy is not None and self._state == "running" and lived > policy.healthy_after:
                failures = 0
            if policy is not None and full_disk(self.log_path.parent):
                # Giving up would end the others too, for what somebody can clear away.
                failures = min(failures, policy.attempts - 1)
            if policy is None or failures >= policy.attempts:
                logger.error(
                    "%s ended with %s and is not started again; its log: %s",
                    self.name,
                    self._ended(code),
                    self.log_path,
                )
                self._enter("failed")
                self._finished.set()
                return
            delay = min(policy.longest_delay, policy.first_delay * 2**failures)
            failures += 1
            self._restarts += 1
            logger.warning(
                "%s ended with %s; restart %d in %.1f s",
                self.name,
                self._ended(code),
                self._restarts,
                delay,
            )
            self._enter("restarting")
            await asyncio.sleep(delay)
            try:
                await self._launch()
            except ProcessError as error:
                logger.warning("%s", error)
                await self._end()
            else:
                self.restarted()

    async def _cancel_watcher(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher

    async def _end(self) -> None:
        popen = self._popen
        if popen is None:
            return
        if popen.poll() is None:
            os.killpg(popen.pid, signal.SIGTERM)
            deadline = time.monotonic() + self._stop_timeout
            while popen.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(POLL_SECONDS)
            if popen.poll() is None:
                logger.warning(
                    "%s did not end within %g s of SIGTERM; killing it",
                    self.name,
                    self._stop_timeout,
                )
        self._kill_group()
        popen.wait()

    def _kill_group(self) -> None:
        """Kill the child and whatever it had started; once a run, as the number is reused later."""
        group, self._group = self._group, None
        if group is not None:
            # macOS says EPERM where every member is dead but not yet reaped.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)

    def _enter(self, state: State) -> None:
        self._state = state
        self._since = time.time()
        self._entered = time.monotonic()

    def _ended(self, code: int) -> str:
        """How it ended, and what is the matter with the disk: the exit seldom tells."""
        trouble = disk_trouble(self.log_path.parent)
        return f"{_describe_exit(code)} ({trouble})" if trouble else _describe_exit(code)

    def _error(self, what: str) -> ProcessError:
        tail = self.log_tail()
        said = f"The end of its log ({self.log_path}):\n{tail}" if tail else "It wrote no log."
        return ProcessError(f"{self.name} {what}. {said}")

    # its log

    def _rotate_log(self) -> None:
        if self.log_path.exists():
            self.log_path.replace(self.log_path.with_suffix(".log.1"))

    def _bound_log_or_say_why(self) -> None:
        try:
            self._bound_log()
        except OSError as error:  # no reason to stop watching
            logger.warning("%s cannot be kept short: %s", self.log_path, error)

    def _bound_log(self) -> None:
        """Copy and truncate: the child keeps its descriptor, which appends."""
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_LIMIT_BYTES:
            shutil.copyfile(self.log_path, self.log_path.with_suffix(".log.1"))
            os.truncate(self.log_path, 0)


def _open_log(path: Path) -> IO[bytes]:
    # Logs may quote what feeds sent: for the owner's eyes only.
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def _describe_exit(code: int) -> str:
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
