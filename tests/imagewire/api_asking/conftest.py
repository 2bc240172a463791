"""The API over a real broker and ClickHouse, with some analysed images, and a worker's reviewers.

All tests of asking and deciding share it: each keeps to a feed of its own.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from front_process import ClickHouseServer
from shared_broker import SharedBroker

from imagewire.api.app import make_app
from imagewire.api.services import Services
from imagewire.reviews_in_worker import ReviewsInWorker
from imagewire.settings import Settings
from operators.findings import Detection, Findings, Fingerprint, RuleHit, TextLine, Verdict
from operators.frame import Frame, Origin
from sinks.clickhouse.settings import ClickHouseSettings
from sinks.clickhouse.sink import ClickHouseSink
from sinks.kafka import ensure_topics
from streams.metrics import Metrics

KEYS = {
    name: f"{name}-{secrets.token_urlsafe(18)}" for name in ("ann", "bob", "chief", "eve", "guest")
}
_TOPICS = (
    *("images", "bulk", "findings", "verdicts", "review", "failed", "reviews"),
    *("overrides", "claims", "forgotten", "bans", "policy"),
)


def image(
    image_id: str,
    feed: str,
    action: Any = "allow",
    *,
    content: str | None = None,
    rules: Sequence[RuleHit] = (),
    audit: Sequence[str] = (),
    text: str = "",
    ago: float = 0.0,
) -> Frame:
    """An analysed image that reached Kafka `ago` seconds ago."""
    at = time.time_ns() // 1_000_000 - int(ago * 1000)
    frame = Frame(
        image_id, feed, at, Origin("images", 0, secrets.randbelow(10**9), at), uri="http://x/a"
    )
    frame.findings = Findings(
        fingerprint=Fingerprint(content or secrets.token_hex(32), "ab" * 32, 90),
        objects=[
            Detection("bus", 0.5, (0, 0, 10, 10)),
            Detection("person", 0.9, (1, 1, 5, 5)),
        ],
        texts=[TextLine(text, 0.9, ((0, 0), (1, 0), (1, 1), (0, 1)))] if text else [],
        scores={"nsfw": 0.25},
        models={"objects": "nano@1"},
        verdict=Verdict(action, "house-1", list(rules), audit=list(audit)),
    )
    return frame


@dataclass
class Place:
    """The running API, and its stores."""

    url: str
    settings: Settings
    writer: ClickHouseSettings
    services: Services
    keys = KEYS
    image = staticmethod(image)

    def get(self, path: str, key: str = "ann", **arguments: Any) -> httpx.Response:
        return self.ask("GET", path, key, **arguments)

    def post(self, path: str, key: str = "ann", **arguments: Any) -> httpx.Response:
        return self.ask("POST", path, key, **arguments)

    def ask(self, method: str, path: str, key: str = "chief", **arguments: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {KEYS[key]}", **arguments.pop("headers", {})}
        with httpx.Client(base_url=self.url, trust_env=False, timeout=120) as client:
            return client.request(method, path, headers=headers, **arguments)

    def sql(self, query: str, **more: Any) -> list[list[Any]]:
        """Rows, as the API gives them."""
        answer = self.post("/v1/sql", json={"query": query, **more})
        assert answer.status_code == 200, answer.text
        rows: list[list[Any]] = answer.json()["rows"]
        return rows

    def write(self, frames: Sequence[Frame]) -> None:
        """Store analysed images, or failed ones, as a worker does."""

        async def write() -> None:
            sink = ClickHouseSink(self.writer)
            await sink.open()
            await sink.write(frames)
            await sink.close()

        asyncio.run(write())

    def until(self, what: str, look: Any, seconds: float = 60.0) -> Any:
        """What `look` returns once it is true."""
        deadline = time.monotonic() + seconds
        while not (found := look()):
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
            time.sleep(0.1)
        return found


def _key(name: str, *scopes: str, feeds: Sequence[str] = ()) -> dict[str, Any]:
    return {"name": name, "key": KEYS[name], "scopes": list(scopes), "feeds": list(feeds)}


@pytest.fixture(scope="session")
def place(
    apache_kafka: SharedBroker,
    clickhouse_front: ClickHouseServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    mark = secrets.token_hex(5)
    folder: Path = tmp_path_factory.mktemp("asking")
    (folder / "house.toml").write_text(_POLICY)
    common: dict[str, Any] = {
        "kafka": {
            "bootstrap_servers": apache_kafka.address,
            "partitions": 2,
            "topics": {name: f"{name}-{mark}" for name in _TOPICS},
        },
        "stream": {"group": f"group-{mark}"},
        "policy": {"file": folder / "house.toml", "name": f"house-{mark}"},
    }
    clickhouse: dict[str, Any] = {
        "host": clickhouse_front.host,
        "port": clickhouse_front.port,
        "database": f"asking_{mark}",
    }
    writer = clickhouse | {"username": "writer", "password": clickhouse_front.writer_password}
    analyst = clickhouse | {"username": "analyst", "password": clickhouse_front.analyst_password}
    keys = [
        _key("ann", "read", "review"),
        _key("bob", "read", "review"),
        _key("chief", "admin"),
        _key("eve", "read", "review", feeds=["eves"]),
        _key("guest", "publish"),
    ]
    settings = Settings(**common, clickhouse=analyst, api={"keys": keys, "port": 0})
    worker = Settings(**common, clickhouse=writer)
    started: Future[tuple[Services, int, asyncio.AbstractEventLoop]] = Future()
    stop = asyncio.Event()

    async def run() -> None:
        await ensure_topics(worker.kafka)
        sink = ClickHouseSink(worker.clickhouse)
        await sink.open()
        await sink.close()
        reviews = ReviewsInWorker(worker, Metrics())
        reviewing = asyncio.create_task(reviews.run())
        services = Services(settings)
        server = uvicorn.Server(
            uvicorn.Config(make_app(services), port=0, log_level="warning", lifespan="on")
        )
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        started.set_result((services, port, asyncio.get_running_loop()))
        await stop.wait()
        server.should_exit = True
        await serving
        reviewing.cancel()
        await asyncio.gather(reviewing, return_exceptions=True)

    def thread() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise

    running = threading.Thread(target=thread, name="api-asking")
    running.start()
    services, port, loop = started.result(120)
    yield Place(f"http://127.0.0.1:{port}", settings, worker.clickhouse, services)
    loop.call_soon_threadsafe(stop.set)
    running.join(60)


_POLICY = """
[[rules]]
name = "too-naked"
when = "scores.nsfw > 0.8"
action = "block"
explanation = "nsfw {scores.nsfw}"

[[rules]]
name = "crowd"
when = "size(objects) > 20"
action = "review"
shadow = true
feeds = ["policy", "eve*"]

[[rules]]
name = "of-others"
when = "scores.nsfw > 0.9"
action = "review"
feeds = ["others"]
"""
