"""What everything but decoding and models costs: images a second, and processor time an image.

The same messages go through the product with a decoder and operators that do nothing, with more and
more sinks, and through two loops that do nothing at all: a plain aiokafka `getmany` loop, and a
bare Faust agent.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.figures import Options, Report, figure
from bench.laps import Contestant
from bench.photos import Photos, load_photos
from bench.sampling_profile import ProfileError, by_own_function, by_package, sample
from bench.testbed import Testbed, inline

DEVICES = ("cpu",)

_PACKAGE = "bench.parts.overhead"
_PICTURE = (64, 48)


@dataclass(frozen=True, slots=True)
class Entry:
    """A contestant, and how many images make a lap of two seconds or more.

    Attributes:
        sinks: that the product writes to; `None` for a loop that is not the product.
    """

    name: str
    label: str
    last: int
    sinks: tuple[str, ...] | None = None
    policy: bool = False


ENTRIES = (
    Entry("getmany", "aiokafka `getmany` loop", 120_000),
    Entry("faust", "bare Faust agent", 20_000),
    Entry("off", "Imagewire, sinks off", 32_000, ()),
    Entry("kafka", "Imagewire, Kafka", 16_000, ("kafka",)),
    Entry("clickhouse", "Imagewire, Kafka and ClickHouse", 8_000, ("kafka", "clickhouse")),
    Entry("qdrant", "Imagewire, Kafka and Qdrant", 8_000, ("kafka", "qdrant")),
    Entry("all", "Imagewire, all sinks", 8_000, ("kafka", "clickhouse", "qdrant")),
    Entry(
        "policy",
        "Imagewire, all sinks and the default policy",
        8_000,
        ("kafka", "clickhouse", "qdrant"),
        policy=True,
    ),
)


@dataclass(slots=True)
class Laps:
    """What a contestant's laps showed, one number a repeat."""

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    servers: list[dict[str, float]] = field(default_factory=list)

    def add(self, lap: dict[str, Any], servers: dict[str, float], images: int) -> None:
        self.rates.append(lap["images"] / lap["seconds"])
        self.cpu.append(lap["cpu_seconds"] / lap["images"] * 1e6)
        self.servers.append({name: spent / images * 1e6 for name, spent in servers.items()})


def run(options: Options) -> Report:
    """Run the contestants by turns."""
    directory = Path(tempfile.mkdtemp(prefix="imagewire-overhead-"))
    try:
        return _report(*asyncio.run(_run(options, directory)))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _run(options: Options, directory: Path) -> tuple[dict[str, Laps], Counter[str]]:
    photos = load_photos([_PICTURE], different=18)
    laps = {entry.name: Laps() for entry in ENTRIES}
    repeats = 1 if options.quick else options.repeats
    async with AsyncExitStack() as stack:
        bed = await stack.enter_async_context(Testbed(directory, report=options.report))
        options.report("starting the contestants")
        loops = {
            name: await stack.enter_async_context(
                Contestant(
                    name, ["-m", f"{_PACKAGE}.bare_loops", name], log_directory=directory / "logs"
                )
            )
            for name in ("getmany", "faust")
        }
        # One process serves every entry of the product: they differ in what they are told.
        product = await stack.enter_async_context(
            Contestant(
                "product",
                ["-m", f"{_PACKAGE}.empty_worker"],
                log_directory=directory / "logs",
                environment=bed.stack.environment()
                | {"IMAGEWIRE_HTTP__PORT": "0", "IMAGEWIRE_LOG__LEVEL": "WARNING"},
            )
        )
        for repeat in range(-1, repeats):  # the first loads code and warms caches, untimed
            topic, filled = await _fill(bed, photos, repeat, options)
            for entry in ENTRIES:
                last = _lap_length(entry, options, warm=repeat < 0)
                before = bed.cpu_seconds()
                contestant = loops.get(entry.name, product)
                lap = await contestant.lap(**_order(bed, entry, topic, filled, last))
                if repeat < 0 and not options.quick:
                    continue
                after = bed.cpu_seconds()
                servers = {name: after[name] - before.get(name, 0.0) for name in after}
                laps[entry.name].add(lap, servers, last)
                options.report(
                    f"{repeat + 1} of {repeats}: {entry.label}: "
                    f"{laps[entry.name].rates[-1]:,.0f} images/s, "
                    f"{laps[entry.name].cpu[-1]:.0f} µs of CPU an image"
                )
        stacks = await _profile(bed, product, photos, repeats, options)
    return laps, stacks


def _order(bed: Testbed, entry: Entry, topic: str, filled: int, last: int) -> dict[str, Any]:
    """What a contestant is told of a lap."""
    return {
        "name": entry.name,
        "bootstrap": bed.bootstrap,
        "topic": topic,
        "group": f"{topic}-{entry.name}",
        "in_topic": filled,
        "warm_up": max(last // 8, 1),
        "last": last,
        "sinks": entry.sinks,
        "policy": entry.policy,
    }


async def _profile(
    bed: Testbed, product: Contestant, photos: Photos, repeat: int, options: Options
) -> Counter[str]:
    """Samples of one more lap with everything on; none where tracing is not allowed."""
    options.report("profiling one more lap with every sink")
    topic, filled = await _fill(bed, photos, repeat, options)
    everything = ENTRIES[-1]
    last = filled - 1024
    lap = asyncio.create_task(product.lap(**_order(bed, everything, topic, filled, last)))
    try:
        # Joining the group is not what is looked for.
        await asyncio.sleep(0.1 if options.quick else 2.0)
        return await sample(product.pid, 1.0 if options.quick else 4.0)
    except (ProfileError, OSError) as error:
        options.report(f"no profile: {error}")
        return Counter()
    finally:
        await lap


def _lap_length(entry: Entry, options: Options, *, warm: bool) -> int:
    if options.quick:
        return 200
    return entry.last // 4 if warm else entry.last


async def _fill(bed: Testbed, photos: Photos, repeat: int, options: Options) -> tuple[str, int]:
    """A topic of messages that no store has seen, for one repeat."""
    topic = f"overhead-{repeat + 1}"
    longest = max(
        _lap_length(entry, options, warm=False) for entry in ENTRIES if entry.name != "getmany"
    )
    await bed.create_topics(topic)
    # A worker holds up to 256 images behind the one that stops the watch.
    count = longest + 1024
    first = (repeat + 1) * count
    records = (
        inline(f"image-{number}", photos.content(number)) for number in range(first, first + count)
    )
    return topic, await bed.fill(topic, records)


def _report(laps: dict[str, Laps], stacks: Counter[str]) -> Report:
    over_faust = [
        ours / bare for ours, bare in zip(laps["off"].rates, laps["faust"].rates, strict=True)
    ]
    figures = [
        figure("empty_over_bare_faust", over_faust, target=0.7),
        figure(
            "cpu_us_per_image", laps["policy"].cpu, target=300.0, better="lower", unit="µs of CPU"
        ),
        *(
            figure(f"overhead_images_per_second_{name}", laps[name].rates, unit="images/s")
            for name in laps
        ),
        *(
            figure(f"cpu_us_of_{name}", values, better="lower", unit="µs of CPU")
            for name, values in _costs(laps).items()
        ),
    ]
    return Report(
        "Overhead: everything but decoding and models",
        "make bench ONLY=overhead",
        "\n".join([*_text(laps), *_profile_text(stacks)]),
        figures,
    )


def _costs(laps: dict[str, Laps]) -> dict[str, list[float]]:
    """What each sink adds to the worker's processor time, by repeat."""

    def more(with_it: str, without: str) -> list[float]:
        pairs = zip(laps[with_it].cpu, laps[without].cpu, strict=True)
        return [one - other for one, other in pairs]

    return {
        "pipeline": laps["off"].cpu,
        "kafka_sink": more("kafka", "off"),
        "clickhouse_sink": more("clickhouse", "kafka"),
        "qdrant_sink": more("qdrant", "kafka"),
        "policy": more("policy", "all"),
    }


def _text(laps: dict[str, Laps]) -> list[str]:
    lines = [
        "The product's own worker, assembled as ever, with a decoder and operators that do "
        "nothing: every picture becomes the same four pixels, and every image gets the same "
        "findings (3 objects, 2 lines of text, a vector of 1280 numbers, 2 scores), so that sinks "
        f"write what a photo gives. Messages are inline JPEGs of {_PICTURE[0]} × {_PICTURE[1]} "
        "pixels (about 1.5 kB, none like another) in 4 partitions, there before the clock starts. "
        "An image counts when its offset is acknowledged; sinks off means one sink that takes "
        "everything at once. Contestants take turns on the same messages of the same broker; each "
        "is idle while another runs, and the first eighth of a lap is warm-up.",
        "",
        "Beside the worker's own processor time stands that of the servers, which on this machine "
        "share the cores with it.",
        "",
        "| contestant | images/s | spread | CPU of the worker, µs an image | broker, µs | "
        "ClickHouse, µs | Qdrant, µs |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for entry in ENTRIES:
        found = laps[entry.name]
        servers = {
            name: statistics.median(lap.get(name, 0.0) for lap in found.servers)
            for name in found.servers[0]
        }
        broker = sum(
            spent for name, spent in servers.items() if name not in ("clickhouse", "qdrant")
        )
        lines.append(
            f"| {entry.label} | {statistics.median(found.rates):,.0f} | "
            f"{min(found.rates):,.0f} to {max(found.rates):,.0f} | "
            f"{statistics.median(found.cpu):.0f} | {broker:.0f} | "
            f"{servers.get('clickhouse', 0.0):.0f} | {servers.get('qdrant', 0.0):.0f} |"
        )
    lines += ["", "What each adds to the worker's CPU, in µs an image:", ""]
    lines += ["| " + " | ".join(_costs(laps)).replace("_", " ") + " |"]
    lines += ["|" + "--:|" * len(_costs(laps))]
    lines += [
        "| " + " | ".join(f"{statistics.median(v):.0f}" for v in _costs(laps).values()) + " |"
    ]
    return lines


def _profile_text(stacks: Counter[str]) -> list[str]:
    if not stacks:
        return ["", "No profile: py-spy is not allowed to trace processes here."]
    packages = [f"{name} {share:.0%}" for name, share in by_package(stacks).items() if share > 0.01]
    return [
        "",
        "Where the worker's interpreter spends its time with every sink and the default policy: "
        f"{stacks.total()} samples of py-spy over the threads that hold its lock. By package of "
        f"the innermost function: {', '.join(packages)}. By the innermost function of "
        "Imagewire's own, with all that it calls:",
        "",
        "| function | share |",
        "|---|--:|",
        *(f"| `{name}` | {share:.1%} |" for name, share in by_own_function(stacks, 16).items()),
    ]
