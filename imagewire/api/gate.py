"""What every request passes before a route sees it, and every answer on its way out.

It gives the request its id, finds out who asks, and refuses what is too much or comes from where it
should not; it puts the security headers on every answer, and turns whatever goes wrong inside into
a problem without a word about the inside.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import secrets
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagewire.api.hosts import OwnHosts
from imagewire.api.keys import Keys, key_needed
from imagewire.api.limits import RateLimit, bounded, too_large
from imagewire.api.problems import Problem
from imagewire.api.settings import ApiSettings

logger = logging.getLogger(__name__)

_GIVEN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGITS = re.compile(r"[0-9]{1,18}")
_HEADERS = (
    (
        "content-security-policy",
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
)
_UNLIMITED = ("/healthz", "/readyz", "/metrics")


class Gate:
    """The outermost part of the application (ASGI)."""

    def __init__(
        self, app: ASGIApp, settings: ApiSettings, keys: Keys, registry: CollectorRegistry
    ) -> None:
        self._app = app
        self._settings = settings
        self._keys = keys
        self._hosts = None if keys else OwnHosts(settings.hosts)
        self._rate = RateLimit(settings.requests_per_second, settings.burst)
        self._answering = 0
        self._uploads = 0
        self._requests = Counter(
            "imagewire_api_requests_total",
            "Requests answered",
            ["route", "method", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "imagewire_api_request_seconds",
            "Seconds until an answer began",
            ["route"],
            registry=registry,
        )
        self._open = Gauge(
            "imagewire_api_requests_open", "Requests being answered", registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _GIVEN_ID.fullmatch(given) else secrets.token_hex(12)
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.perf_counter()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = MutableHeaders(scope=message)
                own["x-request-id"] = request_id
                for name, value in _HEADERS:
                    own.setdefault(name, value)
                if scope["path"].startswith("/v1/"):
                    own.setdefault("cache-control", "no-store")
                self._seconds.labels(_route(scope)).observe(time.perf_counter() - began)
            await send(message)

        self._answering += 1
        self._open.set(self._answering)
        upload = False
        try:
            try:
                upload = self._let_in(scope, headers)
                self._uploads += upload
                limit = self._limit(upload)
                await self._app(scope, bounded(receive, limit, self._settings.body_timeout), answer)
            except Problem as problem:
                if status:
                    raise
                await problem.response(request_id)(scope, receive, answer)
            except asyncio.CancelledError:
                # The process ends. What was begun is cut off, which the server sees to.
                if not status:
                    await _ending().response(request_id)(scope, receive, answer)
            except Exception:
                logger.exception("request %s failed: %s", request_id, _named(scope))
                if status:  # the answer has begun: it can only be cut off
                    raise
                await _defect().response(request_id)(scope, receive, answer)
        finally:
            self._uploads -= upload
            self._answering -= 1
            self._open.set(self._answering)
            self._requests.labels(_route(scope), _method(scope), str(status)).inc()

    def _let_in(self, scope: Scope, headers: Headers) -> bool:
        """Whether the request may carry a picture, if it may be answered at all.

        Raises:
            Problem: it may not.
        """
        if self._hosts is not None:
            self._hosts.check(headers)
        caller = self._keys.caller(headers)
        scope["state"]["caller"] = caller
        path = scope["path"]
        if path in _UNLIMITED:
            return False
        if self._answering > self._settings.max_requests:
            raise _busy()
        if path.startswith("/v1/"):
            self._take_one(f"key {caller.name}" if self._keys and caller else _address(scope))
            if caller is None:
                # Routes say so only when the body is there, and whoever sends one slowly would
                # hold the place of somebody who has a key.
                raise key_needed({"Connection": "close"})
        upload = headers.get("content-type", "").lower().startswith("multipart/form-data")
        if upload and self._uploads >= self._settings.max_uploads:
            raise _busy()
        # No more digits than a size has; what is no number is left to the server, and counted.
        length = headers.get("content-length", "")
        if _DIGITS.fullmatch(length) and int(length) > self._limit(upload):
            raise too_large(self._limit(upload))
        return upload

    def _limit(self, upload: bool) -> int:
        return self._settings.max_upload_bytes if upload else self._settings.max_json_bytes

    def _take_one(self, caller: str) -> None:
        wait = self._rate.seconds_to_wait(caller)
        if wait:
            raise Problem(
                429,
                "too-many-requests",
                "Too many requests",
                f"{self._settings.requests_per_second:g} requests a second are allowed",
                headers={"Retry-After": str(math.ceil(wait))},
            )


def _busy() -> Problem:
    return Problem(
        503,
        "busy",
        "Too much is asked at once",
        "as many requests are being answered as api.max_requests and api.max_uploads allow; ask "
        "again",
        headers={"Retry-After": "1"},
    )


def _ending() -> Problem:
    return Problem(
        503,
        "ending",
        "The service ends",
        "the service was told to end before this was answered; ask again",
        headers={"Retry-After": "5", "Connection": "close"},
    )


def _defect() -> Problem:
    return Problem(
        500,
        "internal-error",
        "Something went wrong inside",
        "this is a defect; the log of the service has more under the id in 'instance'",
    )


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return f"address {client[0]}" if client else "address unknown"


def _route(scope: Scope) -> str:
    """The route's pattern: paths hold ids, of which there is no end."""
    route = scope.get("route")
    return str(getattr(route, "path", "other"))


def _method(scope: Scope) -> str:
    method = scope["method"]
    return method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE") else "other"


def _named(scope: Scope) -> str:
    return f"{_method(scope)} {_route(scope)}"
