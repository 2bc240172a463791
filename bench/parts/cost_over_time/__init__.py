"""Does an image cost more when many are stored already?

The same burst goes through stacks that hold 1 000, 100 000 and 1 000 000 rows and points. There is
no model, so that nothing hides what the stores cost: decoding, the ledger and every sink are all
the work. Ids come from the producer and event times from Kafka, which is the dearest case, since
the ClickHouse sink then asks the store whether it knows the id.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure as Chart

from bench.figures import Options, Report, figure
from bench.parts.scale import crew, simulated
from bench.testbed import PARTITIONS, BenchError, Route, RunningWorker, Testbed
from imagewire.embedded.datadir import DataDirectory
from imagewire.embedded.ports import LOOPBACK
from sinks.qdrant.settings import QdrantSettings

DEVICES = ("cpu",)

STORED = (1_000, 100_000, 1_000_000)
IMAGES = 6_000
"""In one burst: some seconds of work."""

_STORES = ("clickhouse", "qdrant")


@dataclass(frozen=True, slots=True)
class Burst:
    """What one burst showed: images a second, and µs of processor time an image by process."""

    rate: float
    cpu: dict[str, float]


@dataclass(slots=True)
class _Place:
    """A stack with some history, and its worker."""

    testbed: Testbed
    route: Route
    worker: RunningWorker | None = None


def run(options: Options) -> Report:
    """Measure throughput by what is stored already."""
    stored = (100, 1_000) if options.quick else STORED
    images = 1_000 if options.quick else IMAGES
    with tempfile.TemporaryDirectory(prefix="imagewire-cost-") as folder:
        measured = asyncio.run(_measure(Path(folder), stored, images, options))
    return _report(measured, images, options)


async def _measure(
    folder: Path, stored: Sequence[int], images: int, options: Options
) -> dict[int, list[Burst]]:
    path = simulated.install(folder / "plugin")
    measured: dict[int, list[Burst]] = {size: [] for size in stored}
    options.report(f"filling the stores with {' and '.join(f'{size:,}' for size in stored)} each")
    began = time.monotonic()
    await fill(folder, stored)
    options.report(f"that took {time.monotonic() - began:.0f} s")
    async with AsyncExitStack() as exits:
        places: dict[int, _Place] = {}
        broker = "apache"
        for size in stored:
            testbed = Testbed(folder / str(size), broker=broker, report=options.report)
            await exits.enter_async_context(testbed)
            broker = testbed.bootstrap  # one for all
            places[size] = _Place(testbed, Route.new(f"stored-{size}"))
            await testbed.create_topics(places[size].route.images)
        started = await exits.enter_async_context(
            crew.workers(
                {
                    f"worker-{size}": (place.testbed, place.route, _settings(path))
                    for size, place in places.items()
                }
            )
        )
        for repeat in range(options.repeats + 1):  # the first one warms up
            for size, place in places.items():
                burst = await _burst(place, started[f"worker-{size}"], images, repeat * images)
                if repeat:
                    measured[size].append(burst)
                    options.report(f"{size:,} stored: {burst.rate:.0f} images/s")
    return measured


async def _burst(place: _Place, worker: RunningWorker, images: int, already: int) -> Burst:
    before = place.testbed.cpu_seconds() | {"worker": worker.cpu_seconds()}
    rate = await crew.images_a_second(
        place.testbed, place.route, [worker], images, partitions=PARTITIONS, already=already
    )
    after = place.testbed.cpu_seconds() | {"worker": worker.cpu_seconds()}
    return Burst(
        rate, {name: (after[name] - before[name]) / images * 1e6 for name in ("worker", *_STORES)}
    )


def _settings(path: str) -> dict[str, str]:
    return {
        **simulated.settings(path),
        # Workers that wait for their turn would ask the broker 50 times a second.
        "IMAGEWIRE_STREAM__FETCH_MAX_WAIT": "0.5",
    }


async def fill(folder: Path, stored: Sequence[int]) -> None:
    """Fill stores below `folder` that nothing serves yet, all at once, in processes of their own.

    Raises:
        BenchError: it failed; what was wrong stands in the output.
    """
    collection = QdrantSettings(host=LOOPBACK).collection_for(simulated.MODEL)

    async def run_filler(name: str, *arguments: object) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", f"{__name__}.{name}", *map(str, arguments)),
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        )
        try:
            if await process.wait():
                raise BenchError(f"filling the stores with {name} failed; see above")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async with asyncio.TaskGroup() as group:
        for size in stored:
            data = DataDirectory(folder / str(size) / "data")
            group.create_task(run_filler("rows", data.clickhouse, size))
            group.create_task(run_filler("points", data.qdrant, collection, size))


def _report(measured: dict[int, list[Burst]], images: int, options: Options) -> Report:
    few, many = min(measured), max(measured)
    ratios = {
        size: [burst.rate / first.rate for burst, first in zip(bursts, measured[few], strict=True)]
        for size, bursts in measured.items()
    }
    rows = "\n".join(
        f"| {size:,} | {statistics.median(burst.rate for burst in bursts):.0f} "
        f"| {statistics.median(ratios[size]):.3f} "
        + "".join(
            f"| {statistics.median(burst.cpu[name] for burst in bursts):.0f} "
            for name in ("worker", *_STORES)
        )
        + "|"
        for size, bursts in measured.items()
    )
    figures = [figure("cost_at_1m_over_1k", ratios[many], target=0.95)]
    figures += [
        figure("cost_at_100k_over_1k", ratios[size]) for size in measured if few < size < many
    ]
    plot = options.plots / "cost_over_time.png"
    _plot(measured, plot)
    text = (
        "Images/s through stacks that hold so many rows in ClickHouse and points in Qdrant when "
        f"the first burst of {images:,} images comes; each burst adds its own, so the smallest "
        f"holds {few + images * (options.repeats + 1):,} in the end. Images of 0.7 kB come inside "
        "the records, and no model looks at them: what is left is decoding, batching, the ledger "
        f"and all sinks. The simulated embedder gives vectors of {simulated.DIMENSION} components "
        "(a million of the default's 1 280 would be 5 GB). Ids are the producer's and event times "
        "Kafka's, which makes the ClickHouse sink look up every id. One broker serves all; a rate "
        "is that of the verdicts from behind the first 15 % to the last one, and when it is taken "
        "all images are safe in every sink.\n\n"
        "| stored before | images/s | ÷ at the fewest | worker µs CPU | ClickHouse µs | Qdrant µs "
        "|\n|---|---|---|---|---|---|\n" + rows
    )
    return Report(
        "Cost over time: throughput by what is stored already",
        "make bench ONLY=cost_over_time",
        text,
        figures,
        {plot.name: "Images/s by rows and points stored before"},
    )


def _plot(measured: dict[int, list[Burst]], path: Path) -> None:
    sizes = list(measured)
    rates = [[burst.rate for burst in measured[size]] for size in sizes]
    medians = [statistics.median(each) for each in rates]
    chart = Chart(figsize=(6, 4), layout="tight")
    axes = chart.subplots()
    axes.errorbar(
        sizes,
        medians,
        yerr=[
            [median - min(each) for median, each in zip(medians, rates, strict=True)],
            [max(each) - median for median, each in zip(medians, rates, strict=True)],
        ],
        marker="o",
        capsize=4,
    )
    axes.set(xscale="log", xlabel="rows and points stored", ylabel="images/s", ylim=(0, None))
    chart.savefig(path, dpi=120)
