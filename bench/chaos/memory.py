"""How much memory the workers hold, sampled from outside."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psutil

MEBIBYTE = 1024 * 1024
_EVERY_SECONDS = 0.25


@dataclass(slots=True)
class Peak:
    """The largest resident set of any one worker, its children included, in MiB."""

    mib: float = 0.0


def resident_mib(pid: int) -> float:
    """The resident set of a process and all below it, in MiB; 0 when it is gone."""
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        total = process.memory_info().rss
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                total += child.memory_info().rss
    return total / MEBIBYTE


@asynccontextmanager
async def watching(pids: Callable[[], Iterable[int]]) -> AsyncIterator[Peak]:
    """Sample the processes that `pids` names at each moment."""
    peak = Peak()

    async def sample() -> None:
        while True:
            for pid in pids():
                peak.mib = max(peak.mib, resident_mib(pid))
            await asyncio.sleep(_EVERY_SECONDS)

    task = asyncio.create_task(sample())
    try:
        yield peak
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
