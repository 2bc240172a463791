"""The API's frame without stores, and beside a broker of its own topics."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn

from imagewire.api.app import make_app
from imagewire.api.services import Services
from imagewire.embedded.ports import free_port
from imagewire.settings import Settings


def api_settings(**tables: Any) -> Settings:
    """Settings whose stores are not there, unless `tables` say where they are."""
    nowhere = free_port()
    return Settings(
        **{
            "kafka": {"bootstrap_servers": f"127.0.0.1:{nowhere}", "request_timeout_ms": 1000},
            "clickhouse": {"host": "127.0.0.1", "port": nowhere},
            "qdrant": {"host": "127.0.0.1", "grpc_port": nowhere},
        }
        | tables
    )


@asynccontextmanager
async def asking(
    settings: Settings, key: str | None = None, prepare: Callable[[Any], None] = lambda app: None
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, in this process and without a socket."""
    services = Services(settings)
    app = make_app(services)
    prepare(app)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with (
        services,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://127.0.0.1:8080",
            headers=headers,
        ) as client,
    ):
        yield client


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, Services]]:
    """A client of the application behind a real socket, for streams."""
    services = Services(settings)
    config = uvicorn.Config(
        make_app(services), host="127.0.0.1", port=0, log_config=None, ws="none"
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done(), task
        await asyncio.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60
        ) as client:
            yield client, services
    finally:
        services.closing.set()
        server.should_exit = True
        await task
