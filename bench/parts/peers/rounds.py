"""The rounds that contenders go through: full speed, an equal load, and kills."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.parts.peers.arena import Arena, NotStoredError
from bench.parts.peers.contenders import Contender
from bench.parts.peers.references import DIFFERENT, Source

_PATIENCE = 200.0
"""Seconds after which a round counts as failed."""
_SETTLED_WITHIN = 400.0
"""Seconds after which a contender that was killed, or whose store was away, must have committed
everything: a program loads its models anew, while four others do, and Kafka gives it the partitions
of the one that was killed."""
_AWAY = (1.5, 1.5, 1.5)
"""Seconds between the kills of ClickHouse's engine, which is started again each time."""

Rates = dict[str, list[float]]
"""Images a second of each repeat, by contender."""


@dataclass(frozen=True, slots=True)
class Speeds:
    """Of rounds at full speed: images a second, and milliseconds of processor time an image in the
    contender's own processes; both of each repeat, by contender."""

    rates: Rates
    cpu_ms: dict[str, list[float]]

    def cores(self, name: str) -> float:
        """How many cores a contender kept busy, in the median."""
        pairs = zip(self.rates[name], self.cpu_ms[name], strict=True)
        return statistics.median(rate * cpu_ms / 1000 for rate, cpu_ms in pairs)


async def warm_up(arena: Arena, contenders: Sequence[Contender], count: int) -> None:
    """Let each contender do `count` photos from either source, all contenders at once.

    Raises:
        NotStoredError: with the end of the contender's log.
    """

    async def warm(contender: Contender) -> None:
        for source in ("local", "http"):
            feed = arena.new_feed(contender, "warm-up")
            await arena.publish(contender, feed, source, count)
            try:
                await arena.until_stored(feed, count, 2 * _PATIENCE)
            except NotStoredError as error:
                raise NotStoredError(f"{error}; its log:\n{arena.log_tail(contender)}") from error

    await asyncio.gather(*(warm(contender) for contender in contenders))


async def full_speed(
    arena: Arena,
    contenders: Sequence[Contender],
    source: Source,
    count: int,
    repeats: int,
    report: Callable[[str], None],
) -> Speeds:
    """Publish `count` photos at once to each in turn, and time until all stores have the last."""
    rates: Rates = {contender.name: [] for contender in contenders}
    cpu_ms: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for repeat in range(repeats):
        # Another one begins each time, so that none always follows the same.
        turn = repeat % len(contenders)
        for contender in [*contenders[turn:], *contenders[:turn]]:
            feed = arena.new_feed(contender, source)
            spent = arena.cpu_seconds(contender)
            began = time.time()
            await arena.publish(contender, feed, source, count)
            ended = await arena.until_stored(feed, count, _PATIENCE)
            spent = arena.cpu_seconds(contender) - spent
            cpu_ms[contender.name].append(1000 * spent / count)
            rates[contender.name].append(count / (ended - began))
        report(
            f"{source}, round {repeat + 1}: "
            + ", ".join(f"{name} {found[-1]:.1f}/s" for name, found in rates.items())
        )
    return Speeds(rates, cpu_ms)


async def equal_load(
    arena: Arena,
    contenders: Sequence[Contender],
    rate: float,
    count: int,
    repeats: int,
    report: Callable[[str], None],
) -> dict[str, list[list[float]]]:
    """Publish to each in turn at the same Poisson times; seconds from Kafka's timestamp until the
    verdict can be read, by contender and repeat."""
    found: dict[str, list[list[float]]] = {contender.name: [] for contender in contenders}
    for repeat in range(repeats):
        gaps = np.random.default_rng(repeat).exponential(1 / rate, count)
        at = np.cumsum(gaps).tolist()
        for contender in contenders:
            feed = arena.new_feed(contender, "load")
            published = await arena.publish(contender, feed, "local", count, at)
            await arena.until_stored(feed, count, _PATIENCE)
            verdict_at = arena.seen(feed).verdict_at
            found[contender.name].append(
                [verdict_at[image_id] - began for image_id, began in published.items()]
            )
        report(
            f"{rate:.1f} images/s, round {repeat + 1}: p99 "
            + ", ".join(
                f"{name} {1000 * np.percentile(seconds[-1], 99):.0f} ms"
                for name, seconds in found.items()
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class Account:
    """What became of a contender's images.

    Attributes:
        lost: images that are not in all of Kafka's topics, ClickHouse and Qdrant.
        doubled_rows: rows that an analyst sees beyond one an image.
        repeats: verdicts on Kafka beyond one an image, which every at-least-once delivery has.
    """

    published: int
    lost: int
    doubled_rows: int
    repeats: int


async def killed(
    arena: Arena, contenders: Sequence[Contender], count: int, kills: int, seed: int
) -> dict[str, Account]:
    """Kill each contender with SIGKILL, `kills` times within `count` images, all side by side: this
    counts images, not seconds."""
    results = await asyncio.gather(
        *(_killed(arena, contender, count, kills, seed) for contender in contenders)
    )
    return {contender.name: result for contender, result in zip(contenders, results, strict=True)}


async def _killed(arena: Arena, contender: Contender, count: int, kills: int, seed: int) -> Account:
    chance = random.Random(seed)
    feed = arena.new_feed(contender, "killed")
    published = await arena.publish(contender, feed, "local", count)
    done = 0
    for number in range(kills):
        # Some way into the batches that follow the first verdicts of this life.
        threshold = min(max(done + 1, number * count // (kills + 1) + 1), count)
        await arena.until_verdicts(feed, threshold, _PATIENCE)
        await asyncio.sleep(chance.uniform(0.0, 0.8))
        arena.kill(contender)
        done = len(arena.seen(feed).verdict_at)
    return await _account(arena, contender, feed, len(published))


async def store_away(
    arena: Arena, contenders: Sequence[Contender], count: int
) -> dict[str, Account]:
    """Keep ClickHouse's engine away for the first seconds in which the contenders work on `count`
    images each, side by side."""
    feeds = {contender.name: arena.new_feed(contender, "store-away") for contender in contenders}
    arena.kill_clickhouse()
    for contender in contenders:
        await arena.publish(contender, feeds[contender.name], "local", count)
    for seconds in _AWAY:
        await asyncio.sleep(seconds)
        arena.kill_clickhouse()
    accounts = await asyncio.gather(
        *(_account(arena, contender, feeds[contender.name], count) for contender in contenders)
    )
    return dict(zip(feeds, accounts, strict=True))


async def _account(arena: Arena, contender: Contender, feed: str, count: int) -> Account:
    """Count once everything is stored, or once the contender has committed all and stores no more.

    Raises:
        NotStoredError: it did neither.
    """
    stored = -1
    deadline = time.monotonic() + _SETTLED_WITHIN
    while True:
        # Asked first: what is committed now was stored before, or never will be.
        unfinished = await arena.unfinished(contender)
        before, stored = stored, await _complete(arena, feed)
        if stored >= count or (not unfinished and stored == before >= 0):
            break
        if time.monotonic() > deadline:
            raise NotStoredError(
                f"{feed}: {unfinished} records were not committed and {stored} of {count} images "
                f"stored {_SETTLED_WITHIN:g} s after the fault; the end of the log:\n"
                f"{arena.log_tail(contender)}"
            )
        await asyncio.sleep(2.0)
    seen = arena.seen(feed)
    rows, _ = await arena.stored(feed)
    return Account(
        published=count,
        lost=count - stored,
        doubled_rows=await asyncio.to_thread(arena.rows_of, feed) - rows,
        repeats=seen.verdicts.total() - len(seen.verdicts),
    )


async def _complete(arena: Arena, feed: str) -> int:
    """How many images are in every store; -1 while one of them does not answer."""
    rows, points = await arena.stored(feed)
    seen = arena.seen(feed)
    return min(rows, points, len(seen.verdicts), len(seen.findings))


def rounded(count: float) -> int:
    """The nearest number of photos that has every picture equally often, at least once."""
    return max(round(count / DIFFERENT), 1) * DIFFERENT
