"""The whole pipeline against what its models can do alone: end to end over ceiling.

Both decode with the product's decoder and run the product's operators on the same photos with the
same settings. What the pipeline adds (Kafka, fetching, queues, the policy's record, three stores on
the same cores) is what the ratio shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.core_time import CoreTime, core_table, core_time
from bench.figures import Figure, Options, Report, figure
from bench.laps import Contestant
from bench.models_alone import models_alone
from bench.photo_server import PhotoServer
from bench.photos import MIX, Photos, load_photos
from bench.rates import steady_rate
from bench.results import on_gpu
from bench.testbed import Record, Route, RunningWorker, Testbed, reference

_MODELS = "models' process"
_LONG_SESSION = {"IMAGEWIRE_STREAM__SESSION_TIMEOUT": "120"}
"""A worker sleeps while its models run alone, and must still have its partitions afterwards."""

_DIFFERENT = 32
"""Pictures before they repeat. What is timed in a lap is a whole number of rounds, so that laps
have the same work whichever photo they begin with."""


@dataclass(frozen=True, slots=True)
class OperatorSet:
    """Operators to measure with.

    Attributes:
        suffix: of the names of its figures.
        warm_up, timed: photos of a lap that are not timed, and that are.
        cool_down: photos of a lap after those, not timed either: when the last batches are under
            way there is nothing left for the other copies of the models, in any contestant.
    """

    label: str
    suffix: str
    switched_off: tuple[str, ...]
    warm_up: int
    timed: int
    cool_down: int

    @property
    def count(self) -> int:
        """Photos of a lap."""
        return self.warm_up + self.timed + self.cool_down

    def settings(self, device: str) -> dict[str, str]:
        """For a worker."""
        return {"IMAGEWIRE_MODELS__DEVICE": device} | {
            f"IMAGEWIRE_OPERATORS__{name.upper()}__ENABLED": "false" for name in self.switched_off
        }


SETS = (
    OperatorSet("the default set", "", (), 32, 160, 32),
    OperatorSet("without reading text", "_without_text", ("text",), 64, 320, 32),
)
_ON_GPU = (
    OperatorSet("the default set", "", (), 128, 640, 64),
    OperatorSet("without reading text", "_without_text", ("text",), 512, 2560, 256),
)
_QUICK = (
    OperatorSet("fingerprint only", "", ("objects", "text", "embedding", "scores"), 4, 44, 4),
)


@dataclass(slots=True)
class Rates:
    """Images a second, one for each repeat."""

    ceiling: list[float] = field(default_factory=list)
    files: list[float] = field(default_factory=list)
    http: list[float] = field(default_factory=list)
    way: str = ""
    cores: dict[str, list[CoreTime]] = field(default_factory=dict)

    def ratios(self, rates: list[float]) -> list[float]:
        return [rate / ceiling for rate, ceiling in zip(rates, self.ceiling, strict=True)]


def run(options: Options) -> Report:
    """Measure each set of operators: models alone, photos from disk, photos over HTTP, by turns."""
    directory = Path(tempfile.mkdtemp(prefix="imagewire-end-to-end-"))
    sets = _ON_GPU if on_gpu(options.device) else SETS
    if options.quick:
        sets = _QUICK
    try:
        found = asyncio.run(_run(options, directory, sets))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return _report(found, options)


async def _run(
    options: Options, directory: Path, sets: tuple[OperatorSet, ...]
) -> dict[OperatorSet, Rates]:
    photos = load_photos(different=_DIFFERENT)
    folder = directory / "photos"
    folder.mkdir()
    found = {}
    async with AsyncExitStack() as stack:
        bed = await stack.enter_async_context(
            Testbed(
                directory / "bed",
                file_roots=[folder],
                report=options.report,
            )
        )
        server = await stack.enter_async_context(PhotoServer(bed.logs, different=_DIFFERENT))
        for operators in sets:
            found[operators] = await _measure(options, bed, server, photos, folder, operators)
    return found


async def _measure(
    options: Options,
    bed: Testbed,
    server: PhotoServer,
    photos: Photos,
    folder: Path,
    operators: OperatorSet,
) -> Rates:
    rates = Rates()
    settings = operators.settings(options.device)
    route = Route.new("end-to-end")
    await bed.create_topics(route.images)
    options.report(f"{operators.label}: loading models twice, for the worker and by themselves")
    async with (
        models_alone(bed.logs, settings, different=_DIFFERENT) as models,
        bed.worker(route, settings | server.environment() | _LONG_SESSION) as worker,
    ):
        line = Line(bed, worker, operators, server.pid)
        # Laps that are not counted: code is loaded, service times are learned, and the broker
        # compiles what it has done some thousand times (it took 10 ms an image in the first laps,
        # and 4 later).
        for _ in range(1 if options.quick else 2):
            await line.lap(_from_disk(photos, folder, line.next_numbers()))
            await line.lap(_from_web(server, line.next_numbers()))
        batch, rates.way = await _best_way(options, models, worker, operators)
        for repeat in range(1 if options.quick else options.repeats):
            with _asleep(worker), core_time({_MODELS: models.pid}) as alone:
                rates.ceiling.append(await _ceiling(models, operators, batch, rates.way))
            rates.files.append(await line.lap(_from_disk(photos, folder, line.next_numbers())))
            from_disk = line.cores
            rates.http.append(await line.lap(_from_web(server, line.next_numbers())))
            laps = {"models alone": alone, "from disk": from_disk, "over HTTP": line.cores}
            for name, cores in laps.items():
                rates.cores.setdefault(name, []).append(cores)
            options.report(
                f"{repeat + 1} of {options.repeats}: {operators.label}: models alone "
                f"{rates.ceiling[-1]:.2f}, from disk {rates.files[-1]:.2f}, over HTTP "
                f"{rates.http[-1]:.2f} images/s"
            )
        rates.way = f"{rates.way}, batches of {batch}"
    return rates


class Line:
    """Laps through the worker, one after the other on the same topics."""

    def __init__(
        self, bed: Testbed, worker: RunningWorker, operators: OperatorSet, server: int | None
    ) -> None:
        self.cores = CoreTime()
        self._server = server
        self._bed = bed
        self._worker = worker
        self._operators = operators
        self._count = operators.count
        self._taken = 0
        self._finished = 0

    def next_numbers(self) -> range:
        """Numbers of photos that no lap had before."""
        self._taken += self._count
        return range(self._taken, self._taken + self._count)

    async def lap(self, records: list[Record]) -> float:
        """Publish all at once, and time the verdicts."""
        with core_time(self._processes()) as self.cores:
            await self._bed.fill(self._worker.route.images, records)
            verdicts = await self._bed.verdicts(
                self._worker.route.verdicts, self._count, skip=self._finished, within=300.0
            )
        self._finished += self._count
        # Only then the stores, so that the next lap finds them idle; asking costs the worker time.
        await self._worker.wait_until_finished(self._finished)
        operators = self._operators
        times = [verdict.at for verdict in verdicts]
        return steady_rate(times, operators.warm_up, operators.cool_down)

    def _processes(self) -> dict[str, int | None]:
        servers = {status.name: status.pid for status in self._bed.stack.status()}
        own = {_MODELS: self._worker.pid, "photo server": self._server, "the bench": os.getpid()}
        return own | servers


def _from_disk(photos: Photos, folder: Path, numbers: range) -> list[Record]:
    for old in folder.iterdir():
        old.unlink()
    paths = photos.write(folder, numbers)
    return [reference(path.stem, path.as_uri()) for path in paths]


def _from_web(server: PhotoServer, numbers: range) -> list[Record]:
    return [reference(f"web-{number}", server.uri(number)) for number in numbers]


@contextlib.contextmanager
def _asleep(worker: RunningWorker) -> Iterator[None]:
    """The worker waits on Kafka all the time; while models run alone it is to cost nothing."""
    pid = worker.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def _best_way(
    options: Options, models: Contestant, worker: RunningWorker, operators: OperatorSet
) -> tuple[int, str]:
    """The batch size and the order of work in which the models alone are fastest."""
    tried = {}
    ways = [("in turn", 16), ("overlapped", 16), ("overlapped", 32)]
    ways += [("side by side", 8), ("side by side", 16)]
    if options.quick:
        ways = [("in turn", 2), ("side by side", 2)]
    await _ceiling(models, operators, ways[0][1], "in turn")  # loads code and warms caches
    for way, batch in ways:
        # Awake in between, so that Kafka does not take its partitions away.
        with _asleep(worker):
            tried[batch, way] = await _ceiling(models, operators, batch, way)
        options.report(f"models alone, {way}, batch {batch}: {tried[batch, way]:.2f} images/s")
    return max(tried, key=lambda key: tried[key])


async def _ceiling(models: Contestant, operators: OperatorSet, batch: int, way: str) -> float:
    lap = await models.lap(what=way, batch=batch, first=0, count=operators.count)
    return steady_rate(lap["times"], operators.warm_up, operators.cool_down)


def _report(found: dict[OperatorSet, Rates], options: Options) -> Report:
    target = 0.90 if on_gpu(options.device) else 0.95
    figures: list[Figure] = []
    lines = [
        f"Photos are {MIX}; no two have the same bytes. The ceiling is the product's decoder and "
        "operators on encoded photos in memory, decoding included, in whichever way is fastest: "
        "each batch decoded and then analysed with all cores, the next batch decoded meanwhile, or "
        "that with every copy of the models at work on a batch of its own. "
        "The worker is stopped (SIGSTOP) while the ceiling is measured. End to end, "
        "references are published at once and the verdicts' Kafka timestamps are timed, after a "
        "warm-up and before the last batches, with ClickHouse, Qdrant, Kafka and decoding on the "
        "same cores as the models.",
        "",
        "| operators | ceiling, images/s | from disk | over HTTP, 20 ms | disk ÷ ceiling | "
        "HTTP ÷ ceiling | fastest ceiling |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for operators, rates in found.items():
        disk, http = rates.ratios(rates.files), rates.ratios(rates.http)
        name = f"end_to_end_over_ceiling{{}}{operators.suffix}"
        # The promise is about the default set; the others show where it would break first.
        promised = None if operators.suffix else target
        figures += [
            figure(name.format(""), disk, target=promised),
            figure(name.format("_http"), http, target=promised),
            figure(f"end_to_end{operators.suffix}", rates.files, unit="images/s"),
        ]
        medians = (statistics.median(values) for values in (rates.ceiling, rates.files, rates.http))
        lines.append(
            f"| {operators.label} | "
            + " | ".join(f"{value:.2f}" for value in medians)
            + f" | {statistics.median(disk):.3f} | {statistics.median(http):.3f} | {rates.way} |"
        )
    lines += [
        "",
        "What the cores do meanwhile, warm-up and last batches included. The models get what the "
        "broker, the stores and the rest of the worker leave of the cores; what those take while "
        "nothing comes is in it, and weighs the more the fewer images there are in a second.",
    ]
    for operators, rates in found.items():
        lines += ["", f"With {operators.label}:", "", core_table(rates.cores, operators.count)]
    return Report(
        "End to end over ceiling", "make bench ONLY=end_to_end", "\n".join(lines), figures
    )
