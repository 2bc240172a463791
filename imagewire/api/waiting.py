"""How long a request waits for its turn at a store that others are asking.

A store that hangs answers each question with a time-out. Behind a lock the second would wait for
two of them and the tenth for ten, and soon all places of the API are taken by those who wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

from imagewire.api.problems import Problem, store_is_away

LONGEST_SECONDS = 15.0
"""Several times as long as the slowest question takes while all is well."""


async def soon(turn: Awaitable[object], store: str) -> None:
    """Wait for `turn`, but not for long.

    Raises:
        Problem: 503, that it did not come.
    """
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            await turn
    except TimeoutError:
        raise _busy(store) from None


@asynccontextmanager
async def turn_of(lock: asyncio.Lock, store: str) -> AsyncIterator[None]:
    """`async with lock`, but without waiting for long.

    Raises:
        Problem: 503, the lock is held by others.
    """
    await soon(lock.acquire(), store)
    try:
        yield
    finally:
        lock.release()


def _busy(store: str) -> Problem:
    return store_is_away(
        store, f"{store} has not answered those who asked before; ask again in a while"
    )
