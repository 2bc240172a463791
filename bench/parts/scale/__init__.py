"""Does the throughput grow with the workers? 1, 2, 4 and 8 of them, each with a simulated device.

All share one Kafka, one ClickHouse and one Qdrant. The device is a sleep, so that what is seen is
the product's own cost of scaling (the consumer group, shared stores) and not a fight for two cores:
its service time is chosen such that eight workers need less than the processor has.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from pathlib import Path

import psutil
from matplotlib.figure import Figure as Chart

from bench.figures import Figure, Options, Report, figure
from bench.parts.scale import crew, simulated
from bench.testbed import Route, Testbed

DEVICES = ("cpu",)

PARTITIONS = 8
WORKERS = (1, 2, 4, 8)
LAUNCH = 0.040
PER_FRAME = 0.040
"""Seconds of the simulated device: 22 images/s in batches of 8. With twice as many, eight workers
and what they share needed 1.9 of two cores."""
FULL_BATCH = 8
MEASURED_SECONDS = 6.0


def run(options: Options) -> Report:
    """Measure throughput by number of workers."""
    sizes = WORKERS[:2] if options.quick else WORKERS
    seconds = 2.5 if options.quick else MEASURED_SECONDS
    with tempfile.TemporaryDirectory(prefix="imagewire-scale-") as folder:
        measured = asyncio.run(_measure(Path(folder), sizes, seconds, options))
    return _report(measured, options)


Measured = dict[int, list[tuple[float, float]]]
"""For each number of workers and each repeat: images a second, and busy cores of this machine."""


def device_rate() -> float:
    """Images a second that one simulated device does in full batches."""
    return FULL_BATCH / (LAUNCH + FULL_BATCH * PER_FRAME)


async def _measure(
    folder: Path, sizes: tuple[int, ...], seconds: float, options: Options
) -> Measured:
    path = simulated.install(folder / "plugin")
    measured: Measured = {size: [] for size in sizes}
    routes = {size: Route.new(f"scale-{size}") for size in sizes}
    async with Testbed(folder / "bed", broker="apache", report=options.report) as testbed:
        for route in routes.values():
            await testbed.create_topics(route.images, partitions=PARTITIONS)
        plans = {
            f"worker-{number}-of-{size}": (routes[size], _settings(path))
            for size in sizes
            for number in range(1, size + 1)
        }
        options.report(f"starting {len(plans)} workers")
        decided = dict.fromkeys(sizes, 0)
        async with crew.forked_workers(testbed, plans, path) as started:
            for repeat in range(options.repeats + 1):  # the first one warms up
                for size in sizes:
                    images = int(size * seconds * device_rate() / (1 if repeat else 2))
                    psutil.cpu_percent()
                    rate = await crew.images_a_second(
                        testbed,
                        routes[size],
                        [started[f"worker-{number}-of-{size}"] for number in range(1, size + 1)],
                        images,
                        partitions=PARTITIONS,
                        already=decided[size],
                    )
                    decided[size] += images
                    cores = psutil.cpu_percent() / 100 * (psutil.cpu_count() or 1)
                    if repeat:
                        measured[size].append((rate, cores))
                        options.report(
                            f"{size} workers: {rate:.1f} images/s, {cores:.2f} cores busy"
                        )
    return measured


def _settings(path: str) -> dict[str, str]:
    return {
        **simulated.settings(path, launch=LAUNCH, per_frame=PER_FRAME),
        "IMAGEWIRE_KAFKA__PARTITIONS": str(PARTITIONS),
        "IMAGEWIRE_BATCH__MAX_BATCH": str(FULL_BATCH),
        # Groups that wait for their turn would ask the broker 50 times a second.
        "IMAGEWIRE_STREAM__FETCH_MAX_WAIT": "0.5",
    }


def _report(measured: Measured, options: Options) -> Report:
    one = [rate for rate, _ in measured[1]]
    efficiency = {
        size: [rate / (size * alone) for (rate, _), alone in zip(results, one, strict=True)]
        for size, results in measured.items()
    }
    figures: list[Figure] = []
    for size, ratios in efficiency.items():
        if size > 1:
            target = 0.9 if size == 4 else None
            figures.append(figure(f"scale_{size}_over_{size}x1", ratios, target=target))
    rows = [
        f"| {size} | {statistics.median(rate for rate, _ in results):.1f} "
        f"| {size * device_rate():.1f} "
        f"| {statistics.median(efficiency[size]):.3f} "
        f"| {statistics.median(cores for _, cores in results):.2f} |"
        for size, results in measured.items()
    ]
    plot = options.plots / "scale.png"
    _plot(measured, plot)
    text = (
        f"Each worker's device is simulated: a batch of n takes it {LAUNCH * 1000:.0f} ms + n x "
        f"{PER_FRAME * 1000:.0f} ms, in which the processor is free; {device_rate():.1f} images/s "
        f"in batches of {FULL_BATCH}. Everything else is real: {PARTITIONS} partitions of Apache "
        "Kafka, decoding, the consumer group, ClickHouse and Qdrant, which all workers share. "
        "Images are published at once and evenly over the partitions; the rate is that of their "
        "verdicts, from behind the first 15 % to the last one, and when it is taken all are safe "
        "in every sink.\n\n"
        "| workers | images/s | their devices could | ÷ workers x one | cores busy |\n"
        "|---|---|---|---|---|\n" + "\n".join(rows) + "\n\n"
        "Cores busy are those of the whole machine: workers, broker, stores and the producer. "
        "All groups run side by side and take turns, so those that wait cost a little too."
    )
    return Report(
        "Scale: throughput by number of workers",
        "make bench ONLY=scale",
        text,
        figures,
        {plot.name: "Images/s by number of workers on 8 partitions, each with a simulated device"},
    )


def _plot(measured: Measured, path: Path) -> None:
    sizes = list(measured)
    rates = [[rate for rate, _ in measured[size]] for size in sizes]
    medians = [statistics.median(each) for each in rates]
    chart = Chart(figsize=(6, 4), layout="tight")
    axes = chart.subplots()
    axes.plot(
        sizes, [size * medians[0] for size in sizes], "--", color="grey", label="workers x one"
    )
    axes.errorbar(
        sizes,
        medians,
        yerr=[
            [median - min(each) for median, each in zip(medians, rates, strict=True)],
            [max(each) - median for median, each in zip(medians, rates, strict=True)],
        ],
        marker="o",
        capsize=4,
        label="measured",
    )
    axes.set(xlabel="workers", ylabel="images/s", xticks=sizes, ylim=(0, None))
    axes.legend()
    chart.savefig(path, dpi=120)
