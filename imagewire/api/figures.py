"""Figures of the last minutes, from what ClickHouse was given: throughput, latency, failures.

Every open console asks every few seconds, so an answer is kept for a while: for seconds, or for
twenty times as long as it took, whichever is longer; the stream then keeps the stores' time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from imagewire.api.kafka_lag import KafkaLag, Lag
from imagewire.api.waiting import turn_of
from imagewire.settings import Settings

T = TypeVar("T")

_MOST_POINTS = 120
_STEPS = (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
_SHARE = 20
_MOST_KEPT = 256

_MAY_SEE = "(empty({feeds:Array(String)}) OR feed IN {feeds:Array(String)})"
# Rows as they were written, repeats included: this is about work done, not about images known.
_POINTS = f"""
SELECT
    intDiv(toUnixTimestamp64Milli(ingested_at), {{step:Int64}}) AS point, count() AS images,
    quantile(0.5)(latency_ms) AS p50, quantile(0.99)(latency_ms) AS p99
FROM images_raw
WHERE ingested_at >= fromUnixTimestamp64Milli({{since:Int64}}, 'UTC')
    AND ingested_at < fromUnixTimestamp64Milli({{until:Int64}}, 'UTC') AND {_MAY_SEE}
GROUP BY point
"""  # noqa: S608 - a constant
_FAILURES = f"""
SELECT intDiv(toUnixTimestamp64Milli(ingested_at), {{step:Int64}}) AS point, count() AS failures
FROM failures_raw
WHERE ingested_at >= fromUnixTimestamp64Milli({{since:Int64}}, 'UTC')
    AND ingested_at < fromUnixTimestamp64Milli({{until:Int64}}, 'UTC') AND {_MAY_SEE}
GROUP BY point
"""  # noqa: S608
_TOTALS = f"""
SELECT
    (SELECT count() FROM images_raw FINAL WHERE {_MAY_SEE}) AS images,
    (SELECT count() FROM failures WHERE {_MAY_SEE}) AS dead_letters
"""  # noqa: S608

Query = Callable[..., Awaitable[list[dict[str, Any]]]]


@dataclass(frozen=True, slots=True)
class Point:
    """What was done in one step of time, from `at_ms` (milliseconds since the epoch) on."""

    at_ms: int
    images_per_second: float
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    failures: int


class Kept(Generic[T]):
    """Answers that are given again for a while; of several who ask the same, one asks really.

    Args:
        seconds: at least so long.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._known: dict[Hashable, tuple[float, T]] = {}
        self._turns: dict[Hashable, asyncio.Lock] = {}

    async def get(self, key: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer to `ask`, which `key` stands for."""
        turn = self._turns.setdefault(key, asyncio.Lock())
        async with turn_of(turn, "ClickHouse"):
            known = self._known.get(key)
            if known is not None and time.monotonic() < known[0]:
                return known[1]
            began = time.monotonic()
            try:
                answer = await ask()
            except BaseException:
                self._turns.pop(key, None)
                raise
            ended = time.monotonic()
            self._known[key] = (ended + max(self._seconds, _SHARE * (ended - began)), answer)
            for old in list(self._known)[:-_MOST_KEPT]:
                del self._known[old]
                self._turns.pop(old, None)
            return answer


class Figures:
    """What `/v1/stats` tells, kept for as long as it may be.

    Args:
        query: runs a query.
        waiting: how many images of some feeds wait for people, as `queue_length` says it.
    """

    def __init__(
        self,
        settings: Settings,
        query: Query,
        waiting: Callable[[Sequence[str]], Awaitable[dict[str, Any]]],
    ) -> None:
        self._query = query
        self._waiting = waiting
        self._lag = KafkaLag(settings)
        self._recent: Kept[list[Point]] = Kept(1.0)
        self._counted: Kept[dict[str, int]] = Kept(5.0)

    async def close(self) -> None:
        """Let go of Kafka."""
        await self._lag.close()

    async def lag(self) -> Lag | None:
        """What the workers have not acknowledged; `None` while Kafka does not answer."""
        return await self._lag.now()

    async def points(self, minutes: int, feeds: Sequence[str]) -> list[Point]:
        """The points of the last minutes, of these feeds (empty: of all).

        Raises:
            QueryError
        """
        now_ms = time.time_ns() // 1_000_000
        # Until the next step begins, the same is true.
        key = (minutes, tuple(feeds), now_ms // (1000 * step_seconds(minutes)))
        return await self._recent.get(key, lambda: points(self._query, minutes, feeds, now_ms))

    async def totals(self, feeds: Sequence[str]) -> dict[str, int]:
        """`images`, `dead_letters` and `review_waiting` of these feeds (empty: of all).

        Raises:
            QueryError
        """

        async def count() -> dict[str, int]:
            waiting = await self._waiting(feeds)
            [row] = await self._query(_TOTALS, {"feeds": list(feeds)})
            waiting_images = int(waiting["policy"]) + int(waiting["audit"])
            return {name: int(value) for name, value in row.items()} | {
                "review_waiting": waiting_images
            }

        return await self._counted.get(tuple(feeds), count)


def step_seconds(minutes: int) -> int:
    """How far the points of so many minutes lie apart."""
    return next((step for step in _STEPS if minutes * 60 <= step * _MOST_POINTS), _STEPS[-1])


async def points(query: Query, minutes: int, feeds: Sequence[str], now_ms: int) -> list[Point]:
    """The points of the last minutes, the oldest first; the step that is under way is left out.

    Raises:
        QueryError
    """
    step = step_seconds(minutes) * 1000
    last = now_ms // step
    first = last - minutes * 60_000 // step
    asked = {"step": step, "since": first * step, "until": last * step, "feeds": list(feeds)}
    images = {row["point"]: row for row in await query(_POINTS, asked)}
    failures = {row["point"]: row["failures"] for row in await query(_FAILURES, asked)}
    made = []
    for number in range(first, last):
        row = images.get(number, {})
        made.append(
            Point(
                number * step,
                round(row.get("images", 0) * 1000 / step, 3),
                _rounded(row.get("p50")),
                _rounded(row.get("p99")),
                failures.get(number, 0),
            )
        )
    return made


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
