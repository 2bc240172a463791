"""Several workers at once, and the rate at which they make a burst of small images safe."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager

import msgspec

from bench.parts.scale.simulated import picture
from bench.rates import steady_rate
from bench.testbed import (
    BenchError,
    Record,
    Route,
    RunningWorker,
    Testbed,
    inline,
)
from imagewire.embedded.ports import free_port
from imagewire.embedded.process import ManagedProcess
from imagewire.native_environment import native_environment

_LOOK_SECONDS = 0.5
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


@asynccontextmanager
async def forked_workers(
    testbed: Testbed, plans: Mapping[str, tuple[Route, Mapping[str, str]]], python_path: str
) -> AsyncIterator[dict[str, RunningWorker]]:
    """Workers by name, forked from one process that loads what they all need.

    Args:
        plans: name of a worker to its route and its settings.
        python_path: of all of them.
    """
    ports = {name: free_port() for name in plans}
    plan = testbed.directory / "workers.json"
    logs = {name: testbed.logs / f"{name}.log" for name in plans}
    forked = [
        {
            "environment": testbed.worker_environment(route, settings, ports[name]),
            "log": str(logs[name]),
        }
        for name, (route, settings) in plans.items()
    ]
    plan.touch(mode=0o600)  # it holds the stores' secrets
    plan.write_bytes(msgspec.json.encode(forked))
    process = ManagedProcess(
        "workers",
        [sys.executable, "-m", "bench.parts.scale.forked", str(plan)],
        log_directory=testbed.logs,
        environment={**os.environ, **native_environment(os.environ), "PYTHONPATH": python_path},
        ready=lambda: _all_healthy(started.values()),
        start_timeout=240.0,
        stop_timeout=60.0,
    )
    started = {
        name: RunningWorker(process, route, ports[name]) for name, (route, _) in plans.items()
    }
    try:
        await process.start()
        yield started
    finally:
        await process.stop()
        await asyncio.gather(*(worker.close() for worker in started.values()))


async def _all_healthy(workers: Iterable[RunningWorker]) -> bool:
    for worker in workers:
        if not await worker.healthy():
            return False
    return True


async def images_a_second(
    testbed: Testbed,
    route: Route,
    crew: Sequence[RunningWorker],
    images: int,
    *,
    partitions: int,
    already: int = 0,
) -> float:
    """Publish `images` at once, evenly over the partitions, and see at which rate `crew` decides.

    A worker decides no faster than its images become safe in every sink, as those that are not are
    bounded; when all are, the verdicts' timestamps tell the rate. The first 15 % are left out: they
    come while others are still being published.

    Args:
        already: verdicts that this route had before.

    Raises:
        BenchError: some failed, or none was finished for a minute.
    """
    before = await _counts(crew)
    changed = time.monotonic()
    finished = failed = seen = 0.0
    publishing = asyncio.create_task(
        testbed.fill(route.images, small_images(images), partitions=partitions)
    )
    try:
        while finished < images:
            await asyncio.sleep(_LOOK_SECONDS)
            finished, failed = (
                now - was for now, was in zip(await _counts(crew), before, strict=True)
            )
            if finished > seen:
                changed, seen = time.monotonic(), finished
            if failed or time.monotonic() - changed > _PATIENCE:
                raise BenchError(
                    f"{finished:.0f} of {images} images are safe and {failed:.0f} failed; the end "
                    f"of the workers' log:\n{crew[0].process.log_tail()}"
                )
        await publishing
    finally:
        publishing.cancel()
    verdicts = await testbed.verdicts(route.verdicts, images, skip=already)
    return steady_rate([verdict.at for verdict in verdicts], int(0.15 * images))


async def _counts(crew: Sequence[RunningWorker]) -> tuple[float, float]:
    """Images safe as findings, and dead letters, of all together."""
    readings = await asyncio.gather(*(worker.metrics() for worker in crew))
    return (
        sum(reading.get("imagewire_frames_out_total", 0.0) for reading in readings),
        sum(reading.get("imagewire_frames_failed_total", 0.0) for reading in readings),
    )
