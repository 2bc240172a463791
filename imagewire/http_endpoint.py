"""The worker's HTTP endpoint: `/metrics` for Prometheus, `/healthz` for whoever supervises it."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from imagewire.settings import ConfigurationError, HttpSettings


class Health(msgspec.Struct):
    """What a worker says of itself.

    `status`: `starting`, `ok`, `degraded` (works, but a sink refuses at the moment, or no image
    can be taken), `stopping` or `failed`. `detail` names what is wrong, by sink or part.
    """

    status: str
    detail: dict[str, str] = {}
    in_flight: int = 0
    models: dict[str, str] = {}
    policy: str = ""


class HttpEndpoint:
    """Serves one worker's metrics and health."""

    def __init__(
        self, settings: HttpSettings, registry: CollectorRegistry, health: Callable[[], Health]
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._health = health
        self._runner: web.AppRunner | None = None
        self.port = settings.port

    async def start(self) -> None:
        """Raises `ConfigurationError` when the address cannot be bound."""
        app = web.Application(middlewares=[self._ask_for_key])
        app.router.add_get("/metrics", self._serve_metrics)
        app.router.add_get("/healthz", self._serve_health)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._settings.host, self._settings.port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigurationError(
                f"cannot listen on {self._settings.host}:{self._settings.port}: {error.strerror}; "
                "choose another http.port (0 takes any free one)"
            ) from error
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _ask_for_key(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        key = self._settings.key
        if key is not None:
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(
                given.encode(errors="surrogateescape"), key.get_secret_value().encode()
            ):
                return web.Response(
                    status=401,
                    text="a key is needed: Authorization: Bearer KEY (http.key)\n",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        return await handler(request)

    async def _serve_metrics(self, request: web.Request) -> web.Response:
        # Thousands of series take tens of milliseconds, in which the loop has heartbeats to send.
        body = await asyncio.to_thread(generate_latest, self._registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _serve_health(self, request: web.Request) -> web.Response:
        health = self._health()
        return web.Response(
            body=msgspec.json.encode(health),
            content_type="application/json",
            # A degraded worker retries by itself: restarting it would only lose its progress.
            status=200 if health.status in ("ok", "degraded") else 503,
        )
