"""A receiver of webhooks on a socket, and the settings that send to it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from imagewire.webhooks_settings import WebhookSettings

KEY = b"k" * 32
SECRET = "whsec_" + base64.b64encode(KEY).decode()
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Receiver:
    """A real HTTP server that answers as it is told and keeps what it got."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answer: Answer = self.ok
        self.url = ""

    async def ok(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="thanks")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.got.append((headers, await request.read()))
        return await self.answer(request)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.got) < count:  # noqa: ASYNC110 - the server has no event for this
                await asyncio.sleep(0.02)


def settings_for(receiver: Receiver, **changes: Any) -> WebhookSettings:
    return WebhookSettings.model_validate(
        {
            "name": "trust",
            "url": receiver.url,
            "secret": SECRET,
            "allow_http": True,
            "allow_networks": ["127.0.0.0/8"],
            "timeout": 2,
        }
        | changes
    )


def status(code: int, **headers: str) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, headers=headers)

    return answer
