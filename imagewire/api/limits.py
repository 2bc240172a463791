"""How often and how much: a bucket of requests for each caller, and a cap on each body."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.types import Message, Receive

from imagewire.api.problems import Problem

_MOST_CALLERS = 10_000
"""Buckets kept. Addresses are cheap to have in masses; a bucket that is forgotten is full again."""


class RateLimit:
    """Token buckets: `burst` requests at once, `per_second` in the long run, for each caller."""

    def __init__(
        self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def seconds_to_wait(self, caller: str) -> float:
        """Take one request from `caller`'s bucket; 0, or the seconds until there is one."""
        now = self._clock()
        tokens, then = self._buckets.get(caller, (self._burst, now))
        tokens = min(self._burst, tokens + (now - then) * self._per_second)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self._per_second
        self._buckets[caller] = (tokens if wait else tokens - 1, now)
        self._buckets.move_to_end(caller)
        if len(self._buckets) > _MOST_CALLERS:
            self._buckets.popitem(last=False)
        return wait


def too_large(limit: int) -> Problem:
    """413, of a body above `limit` bytes."""
    return Problem(
        413,
        "too-large",
        "The request is too large",
        f"the body may have {limit} bytes",
        headers={"Connection": "close"},
        limit=limit,
    )


def bounded(receive: Receive, limit: int, seconds: float) -> Receive:
    """`receive` that raises `Problem` once the body has more than `limit` bytes (413) or takes
    longer than `seconds` (408)."""
    taken = 0
    deadline: float | None = None
    complete = False

    async def take() -> Message:
        nonlocal taken, deadline, complete
        if complete:  # what comes now is that the client has gone, whenever that is
            return await receive()
        loop = asyncio.get_running_loop()
        if deadline is None:
            deadline = loop.time() + seconds
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise Problem(
                408,
                "body-timeout",
                "The request took too long",
                f"the body did not arrive within {seconds:g} s",
                headers={"Connection": "close"},
            ) from None
        if message["type"] == "http.request":
            taken += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if taken > limit:
                raise too_large(limit)
        else:
            complete = True
        return message

    return take
