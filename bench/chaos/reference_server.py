"""Web servers that references lead to: one that serves pictures, one that means harm.

They listen on 127.0.0.2 and above, where the workers of bench.chaos may fetch; 127.0.0.1, where the
stack itself listens, stays forbidden, and a canary there counts who came nevertheless. (Linux
answers on all of 127.0.0.0/8.)
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from aiohttp import web

from bench.chaos import pictures
from imagewire.embedded.ports import LOOPBACK, free_port

HOST = "127.0.0.2"
TRICKS = ("slow", "silent", "endless", "redirect", "circle", "half")
_HOSTILE_HOSTS = {trick: f"127.0.0.{10 + number}" for number, trick in enumerate(TRICKS)}
# A host for each trick: the few connections that one host may have are not shared.
HOSTS = (HOST, *_HOSTILE_HOSTS.values())
"""Every host that workers must be allowed to fetch from."""


class ReferenceServers:
    """An async context manager.

    Attributes:
        port: of every host.
        canary_port: on 127.0.0.1, where redirects point.
        canary_visits: connections that reached it.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.canary_port = free_port()
        self.canary_visits = 0
        self._runner: web.AppRunner | None = None
        self._canary: asyncio.Server | None = None

    def picture(self, number: int) -> str:
        """The address of a picture."""
        return f"http://{HOST}:{self.port}/pictures/{number}.jpg"

    def hostile(self, trick: str, number: int) -> str:
        """The address behind which `trick` waits."""
        return f"http://{_HOSTILE_HOSTS[trick]}:{self.port}/{trick}/{number}"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/pictures/{number}.jpg", self._picture)
        app.router.add_get("/slow/{number}", self._slow)
        app.router.add_get("/silent/{number}", self._silent)
        app.router.add_get("/endless/{number}", self._endless)
        app.router.add_get("/redirect/{number}", self._redirect)
        app.router.add_get("/circle/{number}", self._circle)
        app.router.add_get("/half/{number}", self._half)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        for host in HOSTS:
            await web.TCPSite(self._runner, host, self.port).start()
        self._canary = await asyncio.start_server(self._visit, LOOPBACK, self.canary_port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._canary is not None:
            self._canary.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.canary_visits += 1
        writer.close()

    async def _picture(self, request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        return web.Response(body=pictures.jpeg(number), content_type="image/jpeg")

    async def _slow(self, request: web.Request) -> web.StreamResponse:
        """A picture, one byte every half second."""
        content = pictures.jpeg(int(request.match_info["number"]))
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for byte in content:
                await response.write(bytes([byte]))
                await asyncio.sleep(0.5)
        return response

    async def _silent(self, request: web.Request) -> web.Response:
        """No answer at all, for an hour."""
        await asyncio.sleep(3600)
        return web.Response()

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        """A picture that begins well and never ends."""
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            await response.write(pictures.jpeg(1))
            while True:
                await response.write(bytes(64 * 1024))
        return response

    async def _redirect(self, request: web.Request) -> web.Response:
        """To a port of this machine."""
        raise web.HTTPFound(f"http://{LOOPBACK}:{self.canary_port}/secret")

    async def _circle(self, request: web.Request) -> web.Response:
        raise web.HTTPFound(str(request.url))

    async def _half(self, request: web.Request) -> web.StreamResponse:
        """Half a picture, then the connection is closed."""
        content = pictures.jpeg(int(request.match_info["number"]))
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        await response.write(content[: len(content) // 2])
        if request.transport is not None:
            request.transport.close()
        return response
