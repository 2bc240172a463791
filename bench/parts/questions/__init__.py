"""How long do people wait who ask? Search, SQL while a worker is at full load, the console's pages.

Stores are filled first with images whose findings are made up and whose pictures are real, so that
ten thousand of them stand there in a minute; then everything is asked over HTTP, as programs and
browsers do. A worker is put to full load for the questions in SQL only, as its speed would else be
part of what is said about search and pages.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.figures import Options, Report
from bench.parts.questions.asking import Asker, Waits, ask_search, ask_sql, running_api
from bench.parts.questions.browser import browser_program, live_lag, page_loads
from bench.parts.questions.page import report
from bench.parts.questions.stored import store_images
from bench.photos import Photos, load_photos
from bench.testbed import BenchError, Route, RunningWorker, Testbed, reference
from imagewire.settings import Settings

_WITHOUT_TEXT = {"IMAGEWIRE_OPERATORS__TEXT__ENABLED": "false"}
"""More images a second reach the stores, which is what questions have to live with."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything.

    Attributes:
        images: stored before anything is asked.
        searches: of each kind, in a repeat.
        rounds: of all questions in SQL, in a repeat.
        backlog: images that wait for the worker before it is asked anything.
        pages: times each page is loaded, in a repeat.
        rate: verdicts a second for the live view.
        live_seconds: for how long they come.
    """

    images: int
    searches: int
    rounds: int
    backlog: int
    pages: int
    rate: float
    live_seconds: float


FULL = Plan(10_000, searches=100, rounds=15, backlog=1500, pages=5, rate=100.0, live_seconds=20.0)
QUICK = Plan(200, searches=3, rounds=1, backlog=24, pages=1, rate=20.0, live_seconds=4.0)


@dataclass(slots=True)
class Seen:
    """Everything that was measured, in seconds, one list for each repeat."""

    by_id: list[Waits] = field(default_factory=list)
    by_picture: list[Waits] = field(default_factory=list)
    sql_idle: list[Waits] = field(default_factory=list)
    sql_loaded: list[Waits] = field(default_factory=list)
    worked: list[float] = field(default_factory=list)
    """Images a second that the worker finished while it was asked."""
    pages: list[dict[str, Waits]] = field(default_factory=list)
    live: list[Waits] = field(default_factory=list)
    shown: list[float] = field(default_factory=list)
    """Share of the verdicts whose picture was put up."""
    no_browser: str = ""


def run(options: Options) -> Report:
    """Measure all of it."""
    plan = QUICK if options.quick else FULL
    directory = Path(tempfile.mkdtemp(prefix="imagewire-questions-"))
    try:
        seen = asyncio.run(_measure(options, plan, directory))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return report(seen, plan.images, plan.rate)


async def _measure(options: Options, plan: Plan, directory: Path) -> Seen:
    seen = Seen()
    folder = directory / "photos"
    folder.mkdir()
    photos = load_photos(sizes=((640, 480),))
    bed = Testbed(directory / "bed", file_roots=[folder], report=options.report)
    repeats = 1 if options.quick else options.repeats
    async with bed, running_api(bed) as api:
        options.report(f"storing {plan.images} images")
        ids = await store_images(_as_writer(bed), folder / "stored", plan.images)
        await bed.create_topics("images", "images.bulk", "images.verdicts")
        for repeat in range(repeats):
            await _ask_without_load(api, seen, plan, ids, photos, repeat)
            options.report(f"search: median {seen.by_id[-1].median * 1000:.0f} ms by id")
        await _ask_under_load(options, bed, api, seen, plan, folder, photos, repeats)
        await _look(options, bed, api, seen, plan, ids, repeats)
    return seen


def _as_writer(bed: Testbed) -> Settings:
    """The analyst, whom the bed's settings name, may only read."""
    own = bed.stack.environment()
    settings = bed.settings
    clickhouse = settings.clickhouse.model_copy(
        update={
            "username": own["IMAGEWIRE_CLICKHOUSE__USERNAME"],
            "password": type(settings.clickhouse)(
                password=own["IMAGEWIRE_CLICKHOUSE__PASSWORD"]
            ).password,
        }
    )
    return settings.model_copy(update={"clickhouse": clickhouse})


async def _ask_without_load(
    api: Asker, seen: Seen, plan: Plan, ids: Sequence[str], photos: Photos, repeat: int
) -> None:
    # Of the same images in no repeat: what was asked before may be remembered.
    asked = [
        ids[(repeat * plan.searches + number) * 7 % len(ids)] for number in range(plan.searches)
    ]
    seen.by_id.append(await ask_search(api, [{"image_id": one} for one in asked]))
    begin = 1_000_000 + repeat * plan.searches
    pictures = [photos.content(number) for number in range(begin, begin + plan.searches)]
    seen.by_picture.append(await ask_search(api, pictures))
    seen.sql_idle.append(await ask_sql(api, plan.rounds))


async def _ask_under_load(
    options: Options,
    bed: Testbed,
    api: Asker,
    seen: Seen,
    plan: Plan,
    folder: Path,
    photos: Photos,
    repeats: int,
) -> None:
    route = Route.new("questions")
    await bed.create_topics(route.images)
    settings = _WITHOUT_TEXT | {"IMAGEWIRE_MODELS__DEVICE": options.device}
    options.report("loading a worker's models")
    async with bed.worker(route, settings) as worker:
        published = 0
        for _ in range(repeats):
            numbers = range(2_000_000 + published, 2_000_000 + published + plan.backlog)
            paths = await asyncio.to_thread(photos.write, folder / "load", numbers)
            records = [reference(f"load-{path.stem}", path.as_uri()) for path in paths]
            published += await bed.fill(route.images, records)
            async with _busy(worker) as work:
                seen.sql_loaded.append(await ask_sql(api, plan.rounds))
            left = published - await worker.finished()
            seen.worked.append(work.rate)
            options.report(
                f"SQL: p99 {seen.sql_loaded[-1].p99 * 1000:.0f} ms while {work.rate:.1f} images/s "
                f"were worked on and {left} waited"
            )
            if left <= 0 and not options.quick:
                raise BenchError(
                    "the worker ran out of images while it was asked: this machine is faster than "
                    "the plan assumes; raise backlog in bench/parts/questions"
                )
            await worker.wait_until_finished(published, within=900.0)


@dataclass(slots=True)
class _Work:
    rate: float = 0.0


@asynccontextmanager
async def _busy(worker: RunningWorker) -> AsyncIterator[_Work]:
    """From the moment in which the worker finishes images to the end of the block."""
    loop = asyncio.get_running_loop()
    first = await worker.finished()
    await worker.wait_until_finished(first + 8)
    began, before = loop.time(), await worker.finished()
    work = _Work()
    yield work
    work.rate = (await worker.finished() - before) / (loop.time() - began)


async def _look(
    options: Options,
    bed: Testbed,
    api: Asker,
    seen: Seen,
    plan: Plan,
    ids: Sequence[str],
    repeats: int,
) -> None:
    program = browser_program()
    if isinstance(program, str):
        seen.no_browser = program
        options.report(program)
        return
    for _ in range(repeats):
        seen.pages.append(await page_loads(program, api.address, plan.pages))
        lag = await live_lag(
            program,
            api.address,
            bed.settings.kafka,
            # The newest stand on the wall already.
            ids[100:],
            rate=plan.rate,
            seconds=plan.live_seconds,
        )
        seen.live.append(lag.waits)
        seen.shown.append(lag.shown)
        options.report(
            f"live: median {lag.waits.median:.2f} s behind the verdict, {lag.shown:.0%} shown"
        )
