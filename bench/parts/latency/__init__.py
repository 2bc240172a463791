"""How long does a verdict take, by how busy the worker is?

Capacity is measured first, in every repeat anew, since a machine has better and worse minutes; then
images arrive at fractions of it, by a Poisson process. The producer of these works on the cores
that the models work on, so while capacity is measured it publishes too, where nobody reads. What
the latencies are held against is measured beside them: the service time of one image alone, seen
inside the worker, and that of a full batch.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from bench.figures import Options, Report
from bench.parts.latency.line import Line, Load, Seen
from bench.parts.latency.memory import MemoryWatch
from bench.parts.latency.page import report
from bench.parts.latency.reading import Reading
from bench.photos import load_photos
from bench.rates import steady_rate
from bench.testbed import Route, RunningWorker, Testbed

WARM_UP = 1.0
"""Seconds at the beginning of each load whose images do not count."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one repeat does.

    Attributes:
        warm_up: images published at once before anything is measured; they tell how many make
            the burst.
        warm_up_seconds: for which the largest load follows them: a broker that was just started
            compiles its code while it is used.
        burst_seconds: for about how long images published at once are worked on to see the
            capacity.
        alone: images published one by one to see the service time of one.
        loads: fraction of the capacity, and seconds for which images arrive and count.
    """

    warm_up: int
    warm_up_seconds: float
    burst_seconds: float
    alone: int
    loads: tuple[tuple[float, float], ...]


FULL = Plan(
    warm_up=160,
    warm_up_seconds=10.0,
    burst_seconds=7.0,
    alone=30,
    # Most time goes to the three loads that have a target: at a tenth images are rare, a 99th
    # percentile needs many, and at 110 % it takes ten seconds until every batch is full.
    loads=((0.1, 10.0), (0.3, 4.0), (0.5, 4.0), (0.7, 9.0), (0.9, 5.0), (1.1, 24.0)),
)
QUICK = Plan(
    warm_up=24,
    warm_up_seconds=1.0,
    burst_seconds=1.0,
    alone=3,
    loads=((0.1, 2.0), (0.7, 1.0), (1.1, 2.0)),
)

SIZES = ((640, 480),)
"""One size, so that percentiles are not those of a mix, and a small one, beside whose service time
whatever else takes time shows most."""

SETTINGS = {
    # Half a second an image: there would be too few of them in the time.
    "IMAGEWIRE_OPERATORS__TEXT__ENABLED": "false",
}


@dataclass(frozen=True, slots=True)
class Alone:
    """One image that met no other, in seconds.

    Attributes:
        latency: from its Kafka timestamp to its verdict's.
        fetch, decode, operators: of these stages.
        waited: from its arrival in the worker until the device took it.
    """

    latency: float
    fetch: float
    decode: float
    waited: float
    operators: float

    @property
    def service(self) -> float:
        """What cannot be done without: decoding and the operators, for a batch of one."""
        return self.decode + self.operators


@dataclass(slots=True)
class LoadResult:
    """What one load showed; latencies in seconds, ascending."""

    latencies: list[float]
    batch_size: float
    decided_a_second: float
    memory_growth: float


@dataclass(slots=True)
class Repeat:
    """What one repeat showed.

    Attributes:
        capacity: images a second.
        alone: images published one by one.
        service_of_full: seconds of the operators for a batch at full load.
        full_batch: mean frames in such a batch.
        loads: by fraction of the capacity.
    """

    capacity: float
    alone: list[Alone]
    service_of_full: float
    full_batch: float
    loads: dict[float, LoadResult] = field(default_factory=dict)

    @property
    def service_of_one(self) -> float:
        """Seconds, the median."""
        return statistics.median(each.service for each in self.alone)


def run(options: Options) -> Report:
    """Measure latency by load."""
    plan = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory(prefix="imagewire-latency-") as folder:
        repeats, max_wait = asyncio.run(_measure(Path(folder), plan, options))
    return report(repeats, max_wait, options)


async def _measure(folder: Path, plan: Plan, options: Options) -> tuple[list[Repeat], float]:
    photos = load_photos(sizes=SIZES)
    route = Route.new("latency")
    settings = SETTINGS | {"IMAGEWIRE_MODELS__DEVICE": options.device}
    repeats = []
    pictures = folder / "photos"
    pictures.mkdir()
    async with (
        Testbed(
            folder / "bed", file_roots=[pictures], broker="apache", report=options.report
        ) as bed,
        Line(bed.bootstrap, route, photos, pictures) as line,
        bed.worker(route, settings) as worker,
    ):
        options.report("warming up")
        warm = await line.burst(plan.warm_up)
        rate = steady_rate([each.decided for each in warm], plan.warm_up // 2)
        await line.load(Load(plan.loads[-1][0] * rate, plan.warm_up_seconds, seed=-1))
        for number in range(options.repeats):
            repeat = await _capacity(line, worker, plan, rate)
            rate = repeat.capacity
            options.report(
                f"capacity {repeat.capacity:.1f} images/s in batches of {repeat.full_batch:.1f}; "
                f"one image alone takes {repeat.service_of_one * 1000:.1f} ms"
            )
            for fraction, seconds in plan.loads:
                load = Load(fraction * repeat.capacity, WARM_UP + seconds, seed=number)
                repeat.loads[fraction] = await _under(load, line, worker)
                middle = statistics.median(repeat.loads[fraction].latencies)
                options.report(f"at {fraction:.0%}: p50 {middle * 1000:.0f} ms")
            repeats.append(repeat)
        max_wait = bed.settings.batch.max_wait
    return repeats, max_wait


async def _capacity(line: Line, worker: RunningWorker, plan: Plan, rate: float) -> Repeat:
    """Service times of images one by one, and throughput of images at once, of which about `rate`
    are done in a second."""
    images = max(int(plan.burst_seconds * rate), 32)
    alone = []
    for _ in range(plan.alone):
        before = await Reading.of(worker)
        (seen,) = await line.burst(1)
        gained = (await Reading.of(worker)).since(before)
        stages = (gained.stage_seconds(stage) for stage in ("fetch", "decode"))
        alone.append(Alone(seen.latency, *stages, gained.waited, gained.stage_seconds("operators")))
    before = await Reading.of(worker)
    burst = await line.burst(images, beside=plan.loads[-1][0] * rate)
    gained = (await Reading.of(worker)).since(before)
    return Repeat(
        capacity=steady_rate([each.decided for each in burst], images // 4),
        alone=alone,
        service_of_full=gained.stage_seconds("operators"),
        full_batch=gained.batch_size,
    )


async def _under(load: Load, line: Line, worker: RunningWorker) -> LoadResult:
    before = await Reading.of(worker)
    async with MemoryWatch(worker.pid) as memory:
        seen = await line.load(load)
    gained = (await Reading.of(worker)).since(before)
    began = min(each.published for each in seen)
    counted = [each for each in seen if each.published >= began + WARM_UP] or seen
    return LoadResult(
        latencies=sorted(each.latency for each in counted),
        batch_size=gained.batch_size,
        decided_a_second=_decided_a_second(seen, began + load.seconds),
        memory_growth=memory.growth,
    )


def _decided_a_second(seen: list[Seen], end: float) -> float:
    """Verdicts a second while images were arriving, counted from the end of the batch in which the
    first half of them ends: a queue must build up before every batch is full."""
    times = [each.decided for each in seen if each.decided < end]
    return steady_rate(times, len(times) // 2)
