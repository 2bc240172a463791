"""The console in the system's Chromium: before stores that are full, and before empty ones.

Stores and brokers are those of the whole test run; the API runs in threads of this process. All
tests here are of one group, so that one worker of pytest-xdist makes them once.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from front_process import ClickHouseServer, QdrantServer
from playwright.sync_api import Browser, expect, sync_playwright
from served_api import served
from shared_broker import SharedBroker

from imagewire.api.services import Services
from imagewire.settings import Settings
from sinks.clickhouse.sink import ClickHouseSink
from sinks.kafka.topics import ensure_topics
from sinks.qdrant.sink import QdrantSink

sys.path.append(str(Path(__file__).parent))

from pages import Watched
from ten_thousand import store_ten_thousand

KEYS = {name: f"{name}-{secrets.token_urlsafe(18)}" for name in ("reader", "reviewer")}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("console"))


@pytest.fixture(scope="package")
def full_settings(
    clickhouse_front: ClickHouseServer,
    qdrant_front: QdrantServer,
    tansu_broker: SharedBroker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Settings:
    """Settings of stores with ten thousand images, and of a broker that has its topics."""
    folder = tmp_path_factory.mktemp("ten-thousand")
    settings = _settings(clickhouse_front, qdrant_front, tansu_broker, folder)
    asyncio.run(ensure_topics(settings.kafka))
    asyncio.run(store_ten_thousand(settings, folder, round(time.time() * 1000)))
    return settings


@pytest.fixture(scope="package")
def full_console(full_settings: Settings) -> Iterator[str]:
    """The address of a console with ten thousand images behind it."""
    with served(Services(full_settings)) as address:
        yield address


@pytest.fixture(scope="package")
def guarded_console(full_settings: Settings) -> Iterator[str]:
    """The same images, for those who have one of `KEYS`."""
    keys = [
        {"name": "reader", "key": KEYS["reader"], "scopes": ["read"]},
        {"name": "reviewer", "key": KEYS["reviewer"], "scopes": ["read", "review"]},
    ]
    api = type(full_settings.api)(keys=keys)  # type: ignore[arg-type]
    with served(Services(full_settings.model_copy(update={"api": api}))) as address:
        yield address


@pytest.fixture(scope="package")
def empty_console(
    clickhouse_front: ClickHouseServer,
    qdrant_front: QdrantServer,
    tansu_broker: SharedBroker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The address of a console behind which no image has come yet."""
    folder = tmp_path_factory.mktemp("nothing")
    settings = _settings(clickhouse_front, qdrant_front, tansu_broker, folder)

    async def open_stores() -> None:
        for sink in (
            ClickHouseSink(settings.clickhouse),
            QdrantSink(settings.qdrant, "made-up@1", 32),
        ):
            await sink.open()
            await sink.close()

    asyncio.run(open_stores())
    with served(Services(settings)) as address:
        yield address


# Not for the whole session: Playwright keeps an event loop running in this thread, beside which no
# asynchronous test can run.
@pytest.fixture(scope="module")
def browser(full_console: str, empty_console: str) -> Iterator[Browser]:
    """The system's Chromium. The consoles come first, as they are made in an event loop."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no Chromium is installed; with Debian: apt-get install chromium")
    # A machine that runs other tests beside these is slow at times.
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        # Root, as in containers, has no sandbox.
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def console(browser: Browser, full_console: str) -> Iterator[Watched]:
    """A fresh page before the full console."""
    yield from _page(browser, full_console)


@pytest.fixture(scope="package")
def keys() -> dict[str, str]:
    """The keys of the guarded console, by what they are for."""
    return KEYS


@pytest.fixture
def guarded(browser: Browser, guarded_console: str) -> Iterator[Watched]:
    """A fresh page before the console that asks for a key."""
    yield from _page(browser, guarded_console)


@pytest.fixture
def console_of_nothing(browser: Browser, empty_console: str) -> Iterator[Watched]:
    """A fresh page before the empty console."""
    yield from _page(browser, empty_console)


def _page(browser: Browser, address: str) -> Iterator[Watched]:
    context = browser.new_context(
        viewport={"width": 1440, "height": 900}, reduced_motion="reduce", locale="en-GB"
    )
    context.set_default_timeout(30_000)
    yield Watched(context.new_page(), address)
    context.close()


def _settings(
    clickhouse: ClickHouseServer, qdrant: QdrantServer, broker: SharedBroker, folder: Path
) -> Settings:
    token = secrets.token_hex(5)
    topics = ("images", "verdicts", "review", "reviews", "overrides", "claims", "policy", "failed")
    return Settings(
        kafka={
            "bootstrap_servers": broker.address,
            "topics": {topic: f"{topic}-{token}" for topic in topics},
        },
        clickhouse={
            "host": clickhouse.host,
            "port": clickhouse.port,
            "username": "writer",
            "password": clickhouse.writer_password,
            "database": f"console_{token}",
        },
        qdrant={
            "host": qdrant.host,
            "grpc_port": qdrant.grpc_port,
            "api_key": qdrant.api_key,
            "collection": f"console-{token}",
            # Ten thousand points at once, beside whatever else a busy machine does.
            "timeout": 120,
            "max_points_per_request": 1000,
        },
        fetch={"file_roots": [str(folder)]},
        # Nobody in these photos needs hiding, and finding faces would take longer than all else.
        privacy={"blur": []},
    )  # type: ignore[arg-type]
