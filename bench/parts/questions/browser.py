"""The console in the system's Chromium: how long a page takes, how far its live view is behind.

The live view puts up new pictures once a second, and a sample where more come than can be seen, so
its lag is measured for those that it put up: from the timestamp that Kafka has of a verdict to the
moment in which the tile stands in the document. Both clocks are this machine's.
"""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from aiokafka import AIOKafkaProducer

from bench.parts.questions.asking import Waits
from bench.parts.questions.stored import FEEDS
from bench.testbed import BenchError
from sinks.kafka.records import VerdictRecord
from sinks.kafka.settings import KafkaSettings

if TYPE_CHECKING:
    from playwright.async_api import Page

PAGES = {
    "live": ".tile img",
    "search": "h1",
    "review": "h1",
    "sql": "h1",
    "policy": "h1",
}
"""Views, and what stands there once they are of use."""

_WIDE = {"width": 1440, "height": 900}
_PATIENCE_MS = 60_000
_WATCH = """
() => {
  window.seen = {};
  const note = (node) => {
    if (node.dataset?.id !== undefined) window.seen[node.dataset.id] ??= Date.now();
    node.querySelectorAll?.("[data-id]").forEach(note);
  };
  new MutationObserver((changes) => {
    for (const change of changes) change.addedNodes.forEach(note);
  }).observe(document.body, { childList: true, subtree: true });
}
"""


@dataclass(frozen=True, slots=True)
class Lag:
    """Of the live view. `shown`: share of the verdicts that it put up."""

    waits: Waits
    shown: float


def browser_program() -> Path | str:
    """Where Chromium is, or in words why nothing can be looked at."""
    if importlib.util.find_spec("playwright") is None:
        return "pages are not measured: playwright is not installed"
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        return "pages are not measured: there is no Chromium; with Debian: apt-get install chromium"
    return Path(program)


@asynccontextmanager
async def _page(program: Path) -> AsyncIterator[Page]:
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        # Root, as in containers, has no sandbox.
        browser = await playwright.chromium.launch(
            executable_path=str(program), args=["--no-sandbox"]
        )
        try:
            page = await browser.new_page(viewport=_WIDE)  # type: ignore[arg-type]
            page.set_default_timeout(_PATIENCE_MS)
            yield page
        finally:
            await browser.close()


async def page_loads(program: Path, address: str, times: int) -> dict[str, Waits]:
    """Seconds from asking for a view to its being of use, by view; nothing is in the browser's
    cache."""
    found = {}
    for view, of_use in PAGES.items():
        waits = []
        for _ in range(times):
            async with _page(program) as page:
                began = time.perf_counter()
                await page.goto(f"{address}/#/{view}")
                await page.locator(of_use).first.wait_for()
                if of_use.endswith("img"):
                    await page.wait_for_function(
                        "of => { const img = document.querySelector(of); "
                        "return img.complete && img.naturalWidth > 0; }",
                        arg=of_use,
                    )
                waits.append(time.perf_counter() - began)
        found[view] = Waits(tuple(waits))
    return found


async def live_lag(
    program: Path,
    address: str,
    kafka: KafkaSettings,
    ids: Sequence[str],
    *,
    rate: float,
    seconds: float,
) -> Lag:
    """Publish `rate` verdicts a second over stored images while the live view is open.

    Raises:
        BenchError: the view put up none of them.
    """
    async with _page(program) as page:
        await page.goto(f"{address}/#/live")
        await page.get_by_text("Following", exact=True).wait_for()
        await page.evaluate(_WATCH)
        published = await _publish(kafka, ids, rate, seconds)
        # What was published last is put up a second later at most, if it is.
        await asyncio.sleep(3)
        seen: dict[str, float] = await page.evaluate("() => window.seen")
    waits = [
        max(seen[name] / 1000 - at, 0.0) for name, at in published.items() if seen.get(name, 0)
    ]
    if not waits:
        raise BenchError(f"the live view put up none of {len(published)} verdicts")
    return Lag(Waits(tuple(waits)), len(waits) / len(published))


async def _publish(
    kafka: KafkaSettings, ids: Sequence[str], rate: float, seconds: float
) -> dict[str, float]:
    """Publish verdicts at an even rate; their Kafka timestamps in Unix seconds, by image."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks=1)
    await producer.start()
    published: dict[str, float] = {}
    began = time.monotonic()
    try:
        for number, name in enumerate(ids[: round(rate * seconds)]):
            await asyncio.sleep(max(began + number / rate - time.monotonic(), 0))
            now = time.time_ns() // 1_000_000
            record = VerdictRecord(
                image_id=name,
                content_id=None,
                feed=FEEDS[int(name.rpartition("-")[2]) % len(FEEDS)],
                event_time=datetime.fromtimestamp(now / 1000, UTC)
                .isoformat(timespec="milliseconds")
                .replace("+00:00", "Z"),
                uri=None,
                action="allow",
                rules=[],
                policy="bench",
            )
            published[name] = now / 1000
            await producer.send(
                kafka.topics.verdicts,
                msgspec.json.encode(record),
                key=name.encode(),
                timestamp_ms=now,
            )
        await producer.flush()
    finally:
        await producer.stop()
    return published
