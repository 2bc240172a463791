"""Asks the HTTP API one question after the other, and keeps how long each took."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from bench.testbed import BenchError, Testbed
from imagewire.embedded.api_process import ApiPlace, api_process
from imagewire.embedded.ports import LOOPBACK, free_port

SQL: tuple[str, ...] = (
    "SELECT label, uniqExact(image_id) AS images, round(avg(score), 2) AS mean_score "
    "FROM detections GROUP BY label ORDER BY images DESC",
    "SELECT hour, feed, verdict, images FROM verdicts_hourly "
    "WHERE hour >= now() - INTERVAL 1 DAY ORDER BY hour, feed, verdict",
    "SELECT event_time, image_id, uri, rule FROM rules_fired WHERE verdict = 'block' "
    "ORDER BY event_time DESC LIMIT 50",
    "SELECT feed, quantiles(0.5, 0.9, 0.99)(score) AS nsfw FROM scores WHERE name = 'nsfw' "
    "GROUP BY feed ORDER BY feed",
    "SELECT * FROM images WHERE image_id = 'stored-000123'",
    "SELECT content_id, count() AS copies FROM images GROUP BY content_id HAVING copies > 1 "
    "ORDER BY copies DESC LIMIT 20",
    "SELECT hour, feed, images, p50_ms, p99_ms FROM latency_hourly "
    "ORDER BY hour DESC, feed LIMIT 50",
    "SELECT stage, reason, count() AS images FROM failures GROUP BY stage, reason",
    "SELECT verdict, count() AS images FROM current_verdicts GROUP BY verdict",
    "SELECT label, count() AS images FROM images ARRAY JOIN labels AS label "
    "WHERE feed = 'gate' AND event_time > now() - INTERVAL 6 HOUR GROUP BY label ORDER BY 2 DESC",
)
"""Ten questions as analysts ask them: over everything, over hours, and for one image."""


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds that somebody waited, each time."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def p99(self) -> float:
        """The smallest wait that at least 99 in 100 do not exceed."""
        return sorted(self.seconds)[max(math.ceil(0.99 * len(self.seconds) - 1e-9), 1) - 1]


class Asker:
    """A client of the API. `address` is its base, such as `http://127.0.0.1:8080`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._client = httpx.AsyncClient(base_url=address, trust_env=False, timeout=120.0)

    async def post(self, path: str, **body: Any) -> float:
        """Ask, read the whole answer; returns the seconds it took.

        Raises:
            BenchError: the answer was an error.
        """
        began = time.perf_counter()
        answer = await self._client.post(path, **body)
        took = time.perf_counter() - began
        if answer.status_code != httpx.codes.OK:
            raise BenchError(f"POST {path} gave {answer.status_code}: {answer.text[:500]}")
        return took

    async def close(self) -> None:
        await self._client.aclose()


@asynccontextmanager
async def running_api(bed: Testbed) -> AsyncIterator[Asker]:
    """`imagewire serve` on the bed's stores, without limits on the rate of requests."""
    place = ApiPlace(LOOPBACK, free_port())
    environment = bed.stack.environment() | {
        "IMAGEWIRE_API__REQUESTS_PER_SECOND": "100000",
        "IMAGEWIRE_API__BURST": "100000",
    }
    process = api_process(place, environment, log_directory=bed.logs, restart=None)
    await process.start()
    asker = Asker(f"http://{place.host}:{place.port}")
    try:
        yield asker
    finally:
        await asker.close()
        await process.stop()


async def ask_search(api: Asker, questions: Sequence[Mapping[str, Any] | bytes]) -> Waits:
    """Search by what each says, or by a picture where it is bytes. The first loads the models that
    pictures need, and does not count."""
    waits = []
    for question in (questions[0], *questions):
        if isinstance(question, bytes):
            files = {"picture": ("photo.jpg", question, "image/jpeg")}
            waits.append(await api.post("/v1/search", files=files, data={"limit": "20"}))
        else:
            waits.append(await api.post("/v1/search", json={**question, "limit": 20}))
    return Waits(tuple(waits[1:]))


async def ask_sql(api: Asker, rounds: int) -> Waits:
    """Every question of `SQL` by turns, so many times."""
    waits = [
        await api.post("/v1/sql", json={"query": sql, "max_rows": 10_000})
        for _ in range(rounds)
        for sql in SQL
    ]
    return Waits(tuple(waits))
