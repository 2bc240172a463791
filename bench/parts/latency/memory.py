"""Whether a worker's memory grows while it has more to do than it can."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from bench.chaos.memory import resident_mib

_EVERY_SECONDS = 0.5


class MemoryWatch:
    """Samples a process and its children from entering to leaving.

    Attributes:
        growth: the largest sample of the last third over the largest of the first third.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._samples: list[float] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def growth(self) -> float:
        third = max(len(self._samples) // 3, 1)
        return max(self._samples[-third:]) / max(self._samples[:third])

    async def __aenter__(self) -> Self:
        self._samples = [resident_mib(self._pid)]
        self._task = asyncio.create_task(self._sample())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._samples.append(resident_mib(self._pid))

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            self._samples.append(resident_mib(self._pid))
