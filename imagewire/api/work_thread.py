"""A thread for work that is heavy, one piece at a time, and only so many waiting.

Networks, drawing and comparing take tens of milliseconds to seconds of a processor. In the event
loop they would hold every other request; in as many threads as there are requests they would take
the processors from the stream. Whoever comes when the queue is full is told when to come again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from imagewire.api.giving_way import give_way

T = TypeVar("T")

_FIRST_GUESS_SECONDS = 1.0
_SMOOTHING = 0.2


class BusyError(Exception):
    """The queue is full. `retry_after`: whole seconds after which there should be room."""

    def __init__(self, doing: str, waiting: int, retry_after: int) -> None:
        super().__init__(f"{waiting} others wait for {doing} already; try again in {retry_after} s")
        self.retry_after = retry_after


class WorkThread:
    """Does one piece of work after the other.

    Args:
        doing: what it is for, as in "waits for …".
        most_waiting: pieces of work that may wait, the one that is being done included.
    """

    def __init__(self, doing: str, most_waiting: int) -> None:
        self._doing = doing
        self._most = most_waiting
        self._waiting = 0
        self._seconds = _FIRST_GUESS_SECONDS
        self._thread = ThreadPoolExecutor(1, doing.replace(" ", "-"), give_way)

    @property
    def waiting(self) -> int:
        """Pieces of work that were taken and are not done."""
        return self._waiting

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises. Work whose caller has gone before its turn is left out.

        Raises:
            BusyError: too many wait already.
        """
        if self._waiting >= self._most:
            raise BusyError(
                self._doing, self._waiting, max(1, math.ceil(self._seconds * self._waiting / 2))
            )
        self._waiting += 1
        future = self._thread.submit(self._timed, work)
        # Counted until it is done, not until its caller is gone: it still holds the thread.
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: _tell(loop, self._done))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Let go of the thread once the work at hand is done; what waits is not begun."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _timed(self, work: Callable[[], T]) -> T:
        started = time.monotonic()
        try:
            return work()
        finally:
            took = time.monotonic() - started
            self._seconds += _SMOOTHING * (took - self._seconds)

    def _done(self) -> None:
        self._waiting -= 1


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(what)
