"""The worker's endpoint answers Prometheus and supervisors, and asks for its key if it has one."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from imagewire.http_endpoint import Health, HttpEndpoint
from imagewire.settings import ConfigurationError, HttpSettings

KEY = "a key that is not ASCII: ключ"


@asynccontextmanager
async def endpoint(health: Health, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    registry = CollectorRegistry()
    Counter("pictures_total", "Pictures", ["feed"], registry=registry).labels("north").inc(3)
    served = HttpEndpoint(HttpSettings(port=0, **settings), registry, lambda: health)
    await served.start()
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{served.port}", trust_env=False, timeout=60
        ) as client:
            yield client
    finally:
        await served.stop()


async def test_prometheus_can_read_the_metrics() -> None:
    async with endpoint(Health("ok")) as client:
        answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    (sample,) = [
        sample
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name == "pictures_total"
    ]
    assert (sample.labels, sample.value) == ({"feed": "north"}, 3.0)


@pytest.mark.parametrize(
    ("status", "code"),
    [("starting", 503), ("ok", 200), ("degraded", 200), ("stopping", 503), ("failed", 503)],
)
async def test_health_says_by_its_code_whether_to_leave_the_worker_alone(
    status: str, code: int
) -> None:
    health = Health(status, {"clickhouse": "away"}, 7, {"objects": "net@1"}, "default-1")
    async with endpoint(health) as client:
        answer = await client.get("/healthz")
    assert answer.status_code == code
    assert answer.json() == {
        "status": status,
        "detail": {"clickhouse": "away"},
        "in_flight": 7,
        "models": {"objects": "net@1"},
        "policy": "default-1",
    }


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/anything"])
async def test_without_the_key_nothing_is_told(path: str) -> None:
    wrong = [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {KEY}x".encode()},
        {"Authorization": KEY.encode()},
        {"Authorization": f"Basic {KEY}".encode()},
        {"Authorization": b"Bearer \xff\xfe"},
    ]
    async with endpoint(Health("ok"), key=KEY) as client:
        for headers in wrong:
            answer = await client.get(path, headers=headers)
            assert answer.status_code == 401, headers
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "pictures" not in answer.text
            assert KEY not in answer.text


async def test_with_the_key_everything_is_told() -> None:
    async with endpoint(Health("ok"), key=KEY) as client:
        for scheme in ("Bearer", "bearer"):
            headers = {"Authorization": f"{scheme} {KEY}".encode()}
            assert (await client.get("/metrics", headers=headers)).status_code == 200
            assert (await client.get("/healthz", headers=headers)).status_code == 200


async def test_there_is_nothing_else_to_ask_for() -> None:
    async with endpoint(Health("ok")) as client:
        assert (await client.get("/")).status_code == 404
        assert (await client.post("/metrics")).status_code == 405


async def test_a_port_that_is_taken_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        served = HttpEndpoint(HttpSettings(port=port), CollectorRegistry(), lambda: Health("ok"))
        with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1:{port}.*http\.port"):
            await served.start()
        await served.stop()
