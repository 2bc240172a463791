"""Many workers from one process: what takes long to load is loaded once, then they fork.

    python -m bench.parts.scale.forked PLAN.json

A worker spends some seconds of processor time on loading torch before it does anything, and fifteen
of them would keep two cores busy for minutes before the first image. From there on each is a worker
like any other, with its own settings, log and endpoint.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import NoReturn

import msgspec

import imagewire.worker  # noqa: F401 - what takes long
from imagewire.cli.worker import run_until_stopped
from imagewire.settings import load_settings

_PR_SET_PDEATHSIG = 1


class ForkedWorker(msgspec.Struct):
    """One worker: its whole environment and where its log goes."""

    environment: dict[str, str]
    log: str


def main(plan: Path) -> int:
    """Fork the workers of `plan`, pass SIGTERM on to them, and wait for all."""
    workers = msgspec.json.decode(plan.read_bytes(), type=list[ForkedWorker])
    if threading.active_count() > 1:
        raise RuntimeError(
            "a process with threads cannot fork safely; one of the imports began one"
        )
    parent = os.getpid()
    children = []
    for worker in workers:
        child = os.fork()
        if not child:
            _run(worker, parent)
        children.append(child)

    def pass_on(number: int, _: object) -> None:
        for child in children:
            os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return max(map(abs, statuses))


def _run(worker: ForkedWorker, parent: int) -> NoReturn:
    """Be a worker from here on."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == parent:  # else it died before the call above
            log = os.open(worker.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.environ.clear()
            os.environ.update(worker.environment)
            run_until_stopped(load_settings().settings)
            status = 0
    except BaseException:  # noqa: BLE001 - nothing may return into the parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
