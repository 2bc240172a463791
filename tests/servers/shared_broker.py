"""One broker for all test processes of a run, started by the first that asks.

An Apache Kafka takes some seconds and 400 MB, so the workers of pytest-xdist share one: the first
to take the lock starts it, the others find its address in a file, and the last to leave stops it.
Tests keep apart by unique names of topics and groups.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from imagewire.embedded.broker import BrokerError
from imagewire.embedded.broker_choice import apache_available

START_TIMEOUT = 240.0
IDLE_SECONDS = 60.0
"""For so long nobody need use a broker, such as he who started it and has yet to sign in."""


class SharedBroker:
    """What a test sees of a broker.

    Attributes:
        name: "apache" or "tansu".
        address: `127.0.0.1:PORT`.
        durable: whether it keeps its records when it is restarted.
        supports_idempotence: whether idempotent producers work.
    """

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.durable = name == "apache"
        self.supports_idempotence = name == "apache"

    def __repr__(self) -> str:
        return f"{self.name} at {self.address}"


BOTH = ("apache", "tansu")
"""For a test module's `BROKERS`: what is promised on either broker."""


def broker_at_hand() -> str:
    """The one that tests run on where nothing is promised of each: Apache Kafka if it can run."""
    return "tansu" if missing("apache") and not os.environ.get("CI") else "apache"


def missing(name: str) -> str | None:
    """Why the broker cannot run here, or None if it can."""
    if name != "apache":
        return None
    try:
        apache_available()
    except BrokerError as error:
        return str(error)
    return None


@contextmanager
def shared_broker(name: str, directory: Path) -> Iterator[SharedBroker]:
    """Use the run's broker called `name`; `directory` is one that all test processes see."""
    state = directory / f"{name}.json"
    with _locked(directory / f"{name}.lock"):
        users, pid, address = _read(state)
        users = [user for user in users if psutil.pid_exists(user)]
        if address is None or not psutil.pid_exists(pid):
            pid, address = _start(name, directory)
        _write(state, [*users, os.getpid()], pid, address)
    try:
        yield SharedBroker(name, address)
    finally:
        with _locked(directory / f"{name}.lock"):
            users, pid, address = _read(state)
            users = [user for user in users if user != os.getpid()]
            if users:
                _write(state, users, pid, address)
            else:
                state.unlink(missing_ok=True)
                _stop(pid)


def _read(state: Path) -> tuple[list[int], int, str | None]:
    try:
        users, pid, address = json.loads(state.read_text())
    except FileNotFoundError:
        return [], 0, None
    return users, pid, address


def _write(state: Path, users: list[int], pid: int, address: str | None) -> None:
    # In one step, because the keeper reads it at any moment and takes no lock.
    half = state.with_suffix(".half")
    half.write_text(json.dumps([users, pid, address]))
    half.replace(state)


def _start(name: str, directory: Path) -> tuple[int, str]:
    """Start the keeper below as a process of its own: the test process that asked may end first."""
    announcement = directory / f"{name}.address"
    announcement.unlink(missing_ok=True)
    log = directory / f"{name}-keeper.log"
    with log.open("wb") as output:
        keeper = subprocess.Popen(
            [sys.executable, __file__, name, str(directory), str(announcement)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_TIMEOUT
    while not announcement.exists():
        if keeper.poll() is not None or time.monotonic() > deadline:
            keeper.kill()
            raise RuntimeError(f"{name} did not start:\n{log.read_text()}")
        time.sleep(0.05)
    return keeper.pid, announcement.read_text()


def _stop(pid: int) -> None:
    """At once: nobody needs what a broker would put in order before it ends."""
    with suppress(psutil.NoSuchProcess):
        keeper = psutil.Process(pid)
        broker = keeper.children(recursive=True)
        keeper.kill()  # which takes the broker with it
        psutil.wait_procs([keeper, *broker], timeout=30)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


async def _keep(name: str, directory: Path, announcement: Path) -> None:
    """Run the broker until SIGTERM, or until every test process has gone."""
    from imagewire.embedded.broker_choice import choose_broker

    broker = choose_broker(
        name, directory=directory / "data", log_directory=directory / "logs"
    ).broker
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await broker.start()
    try:
        half = announcement.with_suffix(".half-address")
        half.write_text(broker.address)
        half.rename(announcement)
        state = directory / f"{name}.json"
        idle_since = time.monotonic()
        while not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 1.0)
            # A run that was killed says goodbye to nobody.
            if any(psutil.pid_exists(user) for user in _read(state)[0]):
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > IDLE_SECONDS:
                break
    finally:
        await broker.stop()


if __name__ == "__main__":
    asyncio.run(_keep(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
