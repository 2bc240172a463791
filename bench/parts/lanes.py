"""Does a backlog of bulk images leave the live lane's latency alone?

Live images arrive at a tenth of the capacity, by a Poisson process, at the same moments twice:
first with nothing else to do, then beside ten thousand bulk images that wait. Each repeat has a
worker and topics of its own, since a backlog of that length outlasts what is measured and is left
behind.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.figures import Figure, Options, Report, figure
from bench.parts.latency import SETTINGS, SIZES
from bench.parts.latency.line import Line, Load, Seen
from bench.photos import Photos, load_photos
from bench.rates import steady_rate
from bench.testbed import BenchError, Route, RunningWorker, Testbed, reference

BACKLOG = 10_000
"""Images at least; more where the device would be through with them too soon."""
WARM_UP = 3.0
"""Seconds at the beginning of each load whose images do not count. While no live image came, bulk
had whole batches, and the first live ones wait for those."""
FRACTION = 0.1
"""Of the capacity: what comes live while the service is idle otherwise."""
_UNDER_WAY_WITHIN = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What one repeat does.

    Attributes:
        warm_up: images published at once before anything is measured.
        burst: images published at once to see the capacity.
        seconds: for which live images come and count, alone and beside the backlog.
        under_way: bulk images that are done before the second load begins.
        broker: as the testbed takes it.
    """

    warm_up: int
    burst: int
    seconds: float
    under_way: int
    broker: str


FULL = Plan(warm_up=96, burst=240, seconds=40.0, under_way=64, broker="apache")
# A memory-only broker starts sooner; its timestamps are those of the producers.
QUICK = Plan(warm_up=16, burst=32, seconds=2.0, under_way=8, broker="tansu")


@dataclass(frozen=True, slots=True)
class Repeat:
    """What one repeat showed.

    Attributes:
        capacity: images a second, of live images published at once.
        idle, busy: latencies in seconds of live images alone and beside the backlog, ascending.
        bulk: images of the backlog that were done a second while live ones came.
    """

    capacity: float
    idle: list[float]
    busy: list[float]
    bulk: float

    def over_idle(self, percent: float) -> float:
        """A percentile beside the backlog, over the same percentile alone."""
        return _percentile(self.busy, percent) / _percentile(self.idle, percent)


def run(options: Options) -> Report:
    """Measure live latency with and without a backlog of bulk images."""
    plan = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory(prefix="imagewire-lanes-") as folder:
        repeats = asyncio.run(_measure(Path(folder), plan, options))
    return Report(
        "Live images beside a backlog of bulk images",
        "make bench ONLY=lanes",
        _text(repeats),
        figures(repeats),
    )


async def _measure(folder: Path, plan: Plan, options: Options) -> list[Repeat]:
    photos = load_photos(sizes=SIZES)
    pictures = folder / "photos"
    backlog = photos.write(pictures / "bulk", range(len(photos.pictures)))
    bed = Testbed(folder / "bed", file_roots=[pictures], broker=plan.broker, report=options.report)
    async with bed:
        return [
            await _repeat(bed, plan, photos, backlog, number, options)
            for number in range(options.repeats)
        ]


async def _repeat(
    bed: Testbed,
    plan: Plan,
    photos: Photos,
    backlog: Sequence[Path],
    number: int,
    options: Options,
) -> Repeat:
    route = Route.new("lanes")
    settings = SETTINGS | {"IMAGEWIRE_MODELS__DEVICE": options.device}
    await bed.create_topics(route.bulk)
    async with (
        Line(bed.bootstrap, route, photos, backlog[0].parents[1]) as line,
        bed.worker(route, settings) as worker,
    ):
        await line.burst(plan.warm_up)
        burst = await line.burst(plan.burst)
        capacity = steady_rate([seen.decided for seen in burst], plan.burst // 4)
        options.report(f"capacity {capacity:.1f} images/s")
        load = Load(FRACTION * capacity, WARM_UP + plan.seconds, seed=number)
        idle = _latencies(await line.load(load))
        options.report(f"alone: p99 {_percentile(idle, 99) * 1000:.0f} ms")

        before = await worker.finished()
        length = max(BACKLOG, round(2 * capacity * load.seconds))
        records = (
            reference(f"bulk-{each}", backlog[each % len(backlog)].as_uri())
            for each in range(length)
        )
        await bed.fill(route.bulk, records)
        await worker.wait_until_finished(before + plan.under_way, within=_UNDER_WAY_WITHIN)
        # From the end of filling on the load is steady: a batch's worth is under way.
        busy, bulk = await _beside(load, line, worker)
        options.report(
            f"beside the backlog: p99 {_percentile(busy, 99) * 1000:.0f} ms, "
            f"{bulk:.1f} bulk images/s"
        )
        if await worker.finished() - before >= length:
            raise BenchError(
                f"the {length} bulk images were done before the live ones: this machine needs a "
                "longer backlog (bench.parts.lanes.BACKLOG)"
            )
    return Repeat(capacity, idle, busy, bulk)


async def _beside(load: Load, line: Line, worker: RunningWorker) -> tuple[list[float], float]:
    """Latencies of live images, and bulk images a second meanwhile."""
    before, began = await worker.finished(), time.monotonic()
    seen = await line.load(load)
    seconds = time.monotonic() - began
    # The last live images have a verdict, and may not be safe in every sink yet.
    bulk = max(await worker.finished() - before - len(seen), 0)
    return _latencies(seen), bulk / seconds


def _latencies(seen: Sequence[Seen]) -> list[float]:
    began = min(each.published for each in seen)
    counted = [each for each in seen if each.published >= began + WARM_UP] or seen
    return sorted(each.latency for each in counted)


def _percentile(latencies: Sequence[float], percent: float) -> float:
    return float(np.percentile(latencies, percent))


def figures(repeats: Sequence[Repeat]) -> list[Figure]:
    """Ratios are taken within each repeat."""
    return [
        figure(
            "live_p99_over_idle_with_bulk_backlog",
            [repeat.over_idle(99) for repeat in repeats],
            target=1.5,
            better="lower",
        ),
        figure(
            "live_p50_over_idle_with_bulk_backlog",
            [repeat.over_idle(50) for repeat in repeats],
            better="lower",
        ),
        figure(
            "bulk_beside_live_over_capacity",
            [repeat.bulk / repeat.capacity for repeat in repeats],
            note=f"of 1 - {FRACTION:g} that live images leave; smaller batches are the price",
        ),
    ]


def _text(repeats: Sequence[Repeat]) -> str:
    def row(what: str, latencies: Callable[[Repeat], list[float]]) -> str:
        medians = (
            statistics.median(_percentile(latencies(repeat), percent) for repeat in repeats)
            for percent in (50, 95, 99)
        )
        percentiles = (f"{seconds * 1000:.0f}" for seconds in medians)
        images = sum(len(latencies(repeat)) for repeat in repeats)
        return f"| {what} | {' | '.join(percentiles)} | {images} |\n"

    capacity = statistics.median(repeat.capacity for repeat in repeats)
    bulk = statistics.median(repeat.bulk for repeat in repeats)
    return (
        "Photos of 640 x 480 from disk on `images`, a Poisson process at a tenth of the capacity "
        f"({capacity:.1f} images/s, measured at the beginning of each repeat), the default models "
        "without reading text, every sink on. The same arrivals come twice: alone, and while at "
        f"least {BACKLOG:,} images wait on `images.bulk`, of which the worker does {bulk:.1f} a "
        "second beside the live ones. A latency is the time from the image's Kafka timestamp to "
        "its verdict's.\n\n"
        "| live images | p50 ms | p95 ms | p99 ms | images |\n"
        "|---|--:|--:|--:|--:|\n"
        + row("alone", lambda repeat: repeat.idle)
        + row("beside the backlog", lambda repeat: repeat.busy)
    )
