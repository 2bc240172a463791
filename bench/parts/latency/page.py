"""What the loads showed, as figures, a table and a plot."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure as Chart

from bench.figures import Figure, Options, Report, figure

if TYPE_CHECKING:
    from bench.parts.latency import Alone, Repeat

IDLE, BUSY, OVERLOAD = 0.1, 0.7, 1.1
PERCENTILES = (50, 95, 99)


def percentile(latencies: Sequence[float], percent: float) -> float:
    """Seconds, interpolated."""
    return float(np.percentile(latencies, percent))


def report(repeats: Sequence[Repeat], max_wait: float, options: Options) -> Report:
    """The part's report.

    Args:
        max_wait: seconds, of the worker's settings.
    """
    plot = options.plots / "latency.png"
    _plot(repeats, max_wait, plot)
    return Report(
        "Latency against load",
        "make bench ONLY=latency",
        _text(repeats, max_wait),
        figures(repeats, max_wait),
        {
            plot.name: "Latency from an image's Kafka timestamp to its verdict's, and frames in a "
            "batch, by load"
        },
    )


def bound(repeat: Repeat, max_wait: float) -> float:
    """Seconds that the 99th percentile at 70 % may be: the cap, and two full batches."""
    return max_wait + 2 * repeat.service_of_full


def figures(repeats: Sequence[Repeat], max_wait: float) -> list[Figure]:
    """Ratios are taken within each repeat."""

    def each(value: Callable[[Repeat], float]) -> list[float]:
        return [value(repeat) for repeat in repeats]

    return [
        figure(
            "alone_p50_over_service",
            each(lambda r: statistics.median(one.latency for one in r.alone) / r.service_of_one),
            target=1.15,
            better="lower",
            note="images published one by one: a free device does not wait",
        ),
        figure(
            "idle_p50_over_service",
            each(lambda r: percentile(r.loads[IDLE].latencies, 50) / r.service_of_one),
            target=1.15,
            better="lower",
            note=_why_idle_is_not_alone(repeats),
        ),
        figure(
            "p99_at_70_over_bound",
            each(lambda r: percentile(r.loads[BUSY].latencies, 99) / bound(r, max_wait)),
            target=1.0,
            better="lower",
        ),
        figure(
            "throughput_at_110_over_capacity",
            each(lambda r: r.loads[OVERLOAD].decided_a_second / r.capacity),
            target=0.95,
            note="capacity is that of images published at once, while those of the load come one "
            "by one, counted from the moment when half of its verdicts are there, since batches "
            "grow with the queue; 0.95 leaves room for the noise of two measurements of some "
            "seconds",
        ),
        figure(
            "memory_growth_at_110",
            each(lambda r: r.loads[OVERLOAD].memory_growth),
            target=1.05,
            better="lower",
            note="the worker's memory in the last third of the load over that in the first third",
        ),
    ]


def _text(repeats: Sequence[Repeat], max_wait: float) -> str:
    def middle(value: Callable[[Repeat], float]) -> float:
        return statistics.median(value(repeat) for repeat in repeats)

    def milliseconds(fraction: float, percent: float) -> str:
        return f"{middle(lambda r: percentile(r.loads[fraction].latencies, percent)) * 1000:.0f}"

    rows = "\n".join(
        f"| {fraction:.0%} | {middle(lambda r: fraction * r.capacity):.1f} "  # noqa: B023
        + "".join(f"| {milliseconds(fraction, percent)} " for percent in PERCENTILES)
        + f"| {middle(lambda r: r.loads[fraction].batch_size):.1f} "  # noqa: B023
        + f"| {sum(len(r.loads[fraction].latencies) for r in repeats)} |"
        for fraction in repeats[0].loads
    )
    capacity = middle(lambda r: r.capacity)
    return (
        "Photos of 640 x 480 from disk, a Poisson process of arrivals, the default models without "
        "reading text (half a second an image: too few of them in the time), every sink on. "
        f"Capacity: {capacity:.1f} images/s in batches of {middle(lambda r: r.full_batch):.1f}, "
        "measured at the beginning of each repeat with images that are published at once, while "
        "110 % as many are published one by one to a topic that nobody reads: the load's producer "
        "shares the cores with the worker, and its part is not the worker's. A latency is the time "
        "from the image's Kafka timestamp (handed to its producer) to the verdict's "
        "(`LogAppendTime`: the broker has it), so both ways through Kafka are in it.\n\n"
        "| load | images/s | p50 ms | p95 ms | p99 ms | frames in a batch | images |\n"
        "|---|---|---|---|---|---|---|\n"
        f"{rows}\n\n"
        "One image alone, decoding and operators together, takes "
        f"{middle(lambda r: r.service_of_one) * 1000:.1f} ms inside the worker (the median of "
        "images published one by one); a batch at full load "
        f"{middle(lambda r: r.service_of_full) * 1000:.0f} ms of operators. So at 70 % the 99th "
        f"percentile may be max_wait ({max_wait * 1000:.0f} ms) and two such batches: "
        f"{middle(lambda r: bound(r, max_wait)) * 1000:.0f} ms. At 110 % latency grows for as long "
        "as the load lasts, by queueing alone; percentiles are medians over the repeats.\n\n"
        + _where_it_goes(repeats)
    )


def _why_idle_is_not_alone(repeats: Sequence[Repeat]) -> str:
    rate = statistics.median(IDLE * repeat.capacity for repeat in repeats)
    busy = statistics.median(IDLE * repeat.capacity * repeat.service_of_one for repeat in repeats)
    return (
        f"a tenth of what full batches give is {rate:.1f} images/s, which, analysed one by one, "
        f"keep a copy of the models busy for {busy:.0%} of the time: so many meet another image; "
        "alone_p50_over_service is without that"
    )


def _where_it_goes(repeats: Sequence[Repeat]) -> str:
    """The way of an image that is alone, in medians."""
    alone = [each for repeat in repeats for each in repeat.alone]

    def row(what: str, value: Callable[[Alone], float]) -> str:
        return f"| {what} | {statistics.median(value(each) for each in alone) * 1000:.1f} |\n"

    return (
        "Where the time of an image goes that meets no other:\n\n"
        "| | ms |\n|---|---|\n"
        + row("reading the file", lambda each: each.fetch)
        + row("decoding", lambda each: each.decode)
        + row(
            "between these stages, until the device has it",
            lambda each: each.waited - each.fetch - each.decode,
        )
        + row("operators", lambda each: each.operators)
        + row(
            "Kafka in and out, policy, writing the verdict",
            lambda each: each.latency - each.waited - each.operators,
        )
        + row("from timestamp to timestamp", lambda each: each.latency)
    )


def _plot(repeats: Sequence[Repeat], max_wait: float, path: Path) -> None:
    fractions = list(repeats[0].loads)
    percent = [fraction * 100 for fraction in fractions]
    chart = Chart(figsize=(7, 6), layout="tight")
    latency, batch = chart.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for rank in PERCENTILES:
        values = [
            [percentile(repeat.loads[fraction].latencies, rank) * 1000 for repeat in repeats]
            for fraction in fractions
        ]
        middles = [statistics.median(each) for each in values]
        latency.plot(percent, middles, marker="o", label=f"p{rank}")
        latency.fill_between(
            percent, [min(each) for each in values], [max(each) for each in values], alpha=0.15
        )
    limit = statistics.median(bound(repeat, max_wait) for repeat in repeats) * 1000
    alone = statistics.median(repeat.service_of_one for repeat in repeats) * 1000
    latency.axhline(limit, color="grey", linestyle="--", label="max_wait + 2 full batches")
    latency.axhline(alone, color="grey", linestyle=":", label="service time of one image")
    latency.set(ylabel="ms", yscale="log")
    latency.legend(fontsize="small")
    sizes = [
        statistics.median(repeat.loads[fraction].batch_size for repeat in repeats)
        for fraction in fractions
    ]
    batch.plot(percent, sizes, marker="o", color="black")
    batch.set(xlabel="load, % of capacity", ylabel="frames in a batch", ylim=(0, None))
    chart.savefig(path, dpi=120)
