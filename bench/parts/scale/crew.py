"""Several workers at once, and the rate at which they make a burst of small images safe."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager

from bench.parts.scale.simulated import picture
from bench.testbed import BenchError, Record, Route, RunningWorker, Testbed, inline

_LOOK_SECONDS = 0.25
_PATIENCE = 60.0
_numbers = itertools.count()


def small_images(number: int) -> Iterator[Record]:
    """Records with an id and no `captured_at`: the dearest case, since the ClickHouse sink has to
    look up whether the id has an event time already."""
    content = picture()
    for _ in range(number):
        yield inline(f"bench-{next(_numbers):09d}", content)


@asynccontextmanager
async def workers(
    plans: Mapping[str, tuple[Testbed, Route, Mapping[str, str]]],
) -> AsyncIterator[dict[str, RunningWorker]]:
    """Workers by name, started and stopped side by side, since each takes seconds to load.

    Args:
        plans: name of a worker to where it runs, its route and its settings.
    """
    contexts = {
        name: testbed.worker(route, settings, name=name)
        for name, (testbed, route, settings) in plans.items()
    }
    started: dict[str, RunningWorker] = {}

    async def start(name: str) -> None:
        started[name] = await contexts[name].__aenter__()

    try:
        async with asyncio.TaskGroup() as group:
            for name in contexts:
                group.create_task(start(name))
        yield started
    finally:
        await asyncio.gather(*(contexts[name].__aexit__(None, None, None) for name in started))


async def images_a_second(
    testbed: Testbed,
    route: Route,
    crew: Sequence[RunningWorker],
    images: int,
    *,
    partitions: int,
    ramp: float = 0.15,
) -> float:
    """Publish `images` at once, evenly over the partitions, and see at which rate `crew` makes them
    safe in every sink.

    The first and the last `ramp` of them are left out: the first ones come while others are still
    being published, and towards the end not every worker has something to do.

    Raises:
        BenchError: some failed, or none was finished for a minute.
    """
    before = await _counts(crew)
    began = changed = time.perf_counter()
    seen = [(began, 0.0)]
    publishing = asyncio.create_task(
        testbed.fill(route.images, small_images(images), partitions=partitions)
    )
    try:
        while seen[-1][1] < images:
            await asyncio.sleep(_LOOK_SECONDS)
            finished, failed = (
                now - was for now, was in zip(await _counts(crew), before, strict=True)
            )
            at = time.perf_counter()
            if finished > seen[-1][1]:
                changed = at
            if failed or at - changed > _PATIENCE:
                raise BenchError(
                    f"{finished:.0f} of {images} images are safe and {failed:.0f} failed after "
                    f"{at - began:.0f} s; the end of a worker's log:\n"
                    f"{crew[0].process.log_tail()}"
                )
            seen.append((at, finished))
        await publishing
    finally:
        publishing.cancel()
    first, last = ramp * images, (1 - ramp) * images
    return (last - first) / (_moment(seen, last) - _moment(seen, first))


async def _counts(crew: Sequence[RunningWorker]) -> tuple[float, float]:
    """Images safe as findings, and dead letters, of all together."""
    readings = await asyncio.gather(*(worker.metrics() for worker in crew))
    return (
        sum(reading.get("imagewire_frames_out_total", 0.0) for reading in readings),
        sum(reading.get("imagewire_frames_failed_total", 0.0) for reading in readings),
    )


def _moment(seen: Sequence[tuple[float, float]], count: float) -> float:
    """When `count` images were finished, on a straight line between two looks."""
    for (before, fewer), (after, more) in itertools.pairwise(seen):
        if fewer < count <= more:
            return before + (after - before) * (count - fewer) / (more - fewer)
    raise ValueError(f"{count} images were never finished")
