"""The page about the peers, its figures and its plot."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.figures import Figure, figure
from bench.parts.peers.contenders import OURS, PEERS
from bench.parts.peers.findings import Found, SetFound
from bench.parts.peers.rounds import Rates

LATENCY_PLOT = "peers_latency.png"

_TARGET_LOCAL = 1.3
_TARGET_HTTP = 2.0

_TITLES = {contender.name: contender.title for contender in (OURS, *PEERS)}

_BOUND_BY_MODELS = {
    "local": "On a CPU the models take most of the time from everybody; the text says what every "
    "core busy would give.",
    "http": "On a CPU the models take most of the time from everybody, and a loop that fetches a "
    "batch at once waits 20 ms a batch, not an image; the text says what every core busy would "
    "give.",
}


def best_peer(rates: Rates) -> str:
    """The peer with the highest median."""
    peers = [name for name in rates if name != OURS.name]
    return max(peers, key=lambda name: statistics.median(rates[name]))


def ratios(rates: Rates) -> list[float]:
    """Ours over the best peer's, repeat by repeat."""
    best = rates[best_peer(rates)]
    return [ours / theirs for ours, theirs in zip(rates[OURS.name], best, strict=True)]


def percentile(rounds: Sequence[Sequence[float]], which: float) -> float:
    """Of all rounds together, in milliseconds."""
    return 1000 * float(np.percentile([each for found in rounds for each in found], which))


def figures(found: Found) -> list[Figure]:
    """The headline is the default set, which is what a user gets; the lighter set stands beside."""
    headline = found.default or found.light
    made = _speed_figures(headline, "")
    if found.default is not None:
        made += _speed_figures(found.light, "_without_text")
    made.append(_p99_ratio(found))
    for name, accounts in (
        ("lost_when_killed", found.killed),
        ("lost_when_a_store_was_away", found.store_away),
    ):
        lost = [accounts[OURS.name].lost]
        made.append(figure(name, lost, target=0, better="lower", unit="images"))
    return made


def _speed_figures(speeds: SetFound, suffix: str) -> list[Figure]:
    made = []
    for source, rates, target in (
        ("local", speeds.local.rates, _TARGET_LOCAL),
        ("http", speeds.http.rates, _TARGET_HTTP),
    ):
        values = ratios(rates)
        short = statistics.median(values) < target
        made.append(
            figure(
                f"best_peer_ratio_{source}{suffix}",
                values,
                target=target,
                note=f"The best peer is {_TITLES[best_peer(rates)]}."
                + (f" {_BOUND_BY_MODELS[source]}" if short else ""),
            )
        )
    return made


def _p99_ratio(found: Found) -> Figure:
    p99 = {
        name: [1000 * float(np.percentile(seconds, 99)) for seconds in rounds]
        for name, rounds in found.latency.items()
    }
    peers = [name for name in p99 if name != OURS.name]
    best = min(peers, key=lambda name: percentile(found.latency[name], 99))
    values = [theirs / ours for theirs, ours in zip(p99[best], p99[OURS.name], strict=True)]
    return figure(
        "peer_p99_ratio",
        values,
        target=1.0,
        note=f"{_TITLES[best]} has the lowest p99 of the peers; at {found.rate:.1f} images/s.",
    )


def text(found: Found) -> str:
    """The section's body."""
    parts = [_INTRODUCTION, _what_each_does()]
    parts.append("### Images a second, without reading text")
    parts.append(_speed_table(found.light))
    if found.default is not None:
        parts.append("### Images a second, every operator (the default)")
        parts.append(_speed_table(found.default))
    parts.append(f"{_REACHABLE} {_bound(found.default or found.light)}")
    parts.append(
        f"### Latency at {found.rate:.1f} images/s, Poisson arrivals, without reading text"
    )
    parts.append(_latency_table(found))
    parts.append("### What is lost when a contender is killed, and when a store is away")
    parts.append(_loss_table(found))
    parts.append(_ABOUT_LOSSES)
    return "\n\n".join(parts)


def _what_each_does() -> str:
    return "\n".join(f"- **{each.title}**: {each.does}." for each in (OURS, *PEERS))


def _speed_table(speeds: SetFound) -> str:
    lines = [
        "| | local photos | of Imagewire's | CPU ms an image | cores busy | 20 ms server "
        "| of Imagewire's | cores busy |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in speeds.local.rates:
        cells = []
        for found in (speeds.local, speeds.http):
            rates = found.rates
            own, ours = statistics.median(rates[name]), statistics.median(rates[OURS.name])
            low, high = min(rates[name]), max(rates[name])
            cells += [f"{own:.1f} ({low:.1f} to {high:.1f})", f"{own / ours:.2f}"]
            if found is speeds.local:
                cells.append(f"{statistics.median(found.cpu_ms[name]):.0f}")
            cells.append(f"{found.cores(name):.2f}")
        lines.append(f"| {_TITLES[name]} | {' | '.join(cells)} |")
    repeats = len(next(iter(speeds.local.rates.values())))
    lines.append("")
    lines.append(
        f"Medians of {repeats} interleaved rounds of {speeds.count} photos (lowest to highest)."
    )
    return "\n".join(lines)


def _bound(speeds: SetFound) -> str:
    """What the processor time of an image allows at most, with local photos."""
    cores = len(os.sched_getaffinity(0))
    rates, cpu_ms = speeds.local.rates, speeds.local.cpu_ms
    best = best_peer(rates)
    ours = statistics.median(cpu_ms[OURS.name])
    possible = 1000 * cores / ours
    http = best_peer(speeds.http.rates)
    return (
        f"Here {_TITLES[best]} spends {statistics.median(cpu_ms[best]):.0f} ms of processor time "
        f"on an image and keeps {speeds.local.cores(best):.2f} of {cores} cores busy; Imagewire "
        f"spends {ours:.0f} ms and keeps {speeds.local.cores(OURS.name):.2f} busy (the broker and "
        "the stores want some, too). With every core busy for nothing but its own work Imagewire "
        f"would do {possible:.1f} images/s, "
        f"{possible / statistics.median(rates[best]):.2f} times the best peer with local photos "
        f"and {possible / statistics.median(speeds.http.rates[http]):.2f} times the best with the "
        "20 ms server: more than that takes less work for an image, not overlap."
    )


def _latency_table(found: Found) -> str:
    lines = ["| | p50, ms | p95, ms | p99, ms |", "|---|---:|---:|---:|"]
    for name, rounds in found.latency.items():
        cells = " | ".join(f"{percentile(rounds, which):.0f}" for which in (50, 95, 99))
        lines.append(f"| {_TITLES[name]} | {cells} |")
    rounds = next(iter(found.latency.values()))
    lines.append("")
    lines.append(
        f"{len(rounds)} rounds of {len(rounds[0])} images each, at the same times for everybody; "
        "from the record's Kafka timestamp until its verdict can be read."
    )
    return "\n".join(lines)


def _loss_table(found: Found) -> str:
    lines = [
        "| | lost | doubled rows | repeated verdicts | lost | doubled rows | repeated verdicts |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, killed in found.killed.items():
        cells = [
            f"{account.lost} | {account.doubled_rows} | {account.repeats}"
            for account in (killed, found.store_away[name])
        ]
        lines.append(f"| {_TITLES[name]} | {' | '.join(cells)} |")
    published = next(iter(found.killed.values())).published
    lines.append("")
    lines.append(
        f"Of {published} images each: on the left after {found.kills} times kill -9 while batches "
        "were under way, on the right with ClickHouse's engine killed and started again four "
        "times within the first seconds. "
        "Verdicts are repeated on Kafka by every delivery that is at least once."
    )
    return "\n".join(lines)


def plot(found: Found, folder: Path) -> dict[str, str]:
    """How latency is distributed; returns file names with their captions."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure_, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name, rounds in found.latency.items():
        milliseconds = np.sort([1000 * each for seconds in rounds for each in seconds])
        share = (np.arange(len(milliseconds)) + 1) / len(milliseconds)
        axes.plot(
            milliseconds,
            share,
            label=_TITLES[name].replace("`", ""),
            linewidth=2.5 if name == OURS.name else 1.2,
        )
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds from Kafka timestamp to verdict")
    axes.set_ylabel("share of images")
    axes.set_ylim(0, 1.01)
    axes.grid(alpha=0.3)
    axes.legend()
    figure_.savefig(folder / LATENCY_PLOT, dpi=110)
    plt.close(figure_)
    return {LATENCY_PLOT: f"Latency at {found.rate:.1f} images/s, by contender."}


_INTRODUCTION = """\
Every contender reads the same photos from a topic of its own on the same broker (the embedded \
Apache Kafka where it runs), runs Imagewire's own operators and policy in the same precision, 16 \
images at a time, and writes verdicts, findings, rows and points through Imagewire's own sinks. A \
round begins when the photos are published, all at once, and ends when Kafka, ClickHouse and \
Qdrant hold all of them. All contenders run side by side with their models loaded, and only one at \
a time gets work; rounds are interleaved, and another one begins each time.

What is given to the peers: Imagewire's operators with their fused networks and bfloat16, its \
policy, and its sinks with their columns and identities, which make a replay overwrite. What they \
are not given is what is not to be had in an afternoon: overlap of the stages, decoding in \
parallel, and the settings of malloc and oneDNN, which Imagewire makes for itself. They decode \
with OpenCV in their own process, without Imagewire's limits and without child processes that \
contain crashes, and fetch without its guards against addresses that a stranger chose; all that \
counts for them."""


_REACHABLE = """\
On a CPU the models take most of the time from everybody, so what sets contenders apart is the \
processor time that an image costs, and how many cores are kept busy. A peer runs one copy of the \
models on all cores, whose threads wait for each other after every layer; Imagewire runs a copy \
for each core, in one process. (LitServe could start several workers with models of their own; \
that was not tried.)"""

_ABOUT_LOSSES = """\
Counted once everything was stored or all offsets were committed, so that nothing was to come; an \
image is lost if Kafka, ClickHouse or Qdrant lacks it for good. That rows are not doubled is the \
sinks' doing, which the peers borrow. All peers commit after storing, so a kill costs them repeats \
and no images. An error is another matter: Faust's `take` acknowledges its batch also when the \
body raises, and the agent goes on with the next."""
