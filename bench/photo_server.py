"""A web server for photos that takes its time, as servers of strangers do.

It runs in a process of its own, so that what it costs is not counted as the pipeline's and does not
hold the bench's interpreter. It answers on 127.0.0.2 (Linux answers on all of 127.0.0.0/8), which a
worker is allowed to fetch from by the settings that `environment` gives.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from bench.photos import load_photos
from imagewire.embedded.ports import free_port
from imagewire.embedded.process import ManagedProcess

HOST = "127.0.0.2"
DELAY = 0.02
"""Seconds before the first byte, as the bench's promise has it."""


class PhotoServer:
    """An async context manager around the server's process."""

    def __init__(self, log_directory: Path, *, delay: float = DELAY, different: int = 60) -> None:
        """`different`: as `load_photos` takes it, so that both serve the same photos."""
        self.port = free_port()
        self._process = ManagedProcess(
            "photo-server",
            [
                *(sys.executable, "-m", "bench.photo_server", "--port", str(self.port)),
                *("--delay", str(delay), "--different", str(different)),
            ],
            log_directory=log_directory,
            ready=self._answers,
        )

    def uri(self, number: int) -> str:
        """The address of photo `number`."""
        return f"http://{HOST}:{self.port}/{number}.jpg"

    def environment(self) -> dict[str, str]:
        """Settings that let a worker fetch from here."""
        return {
            "IMAGEWIRE_FETCH__ALLOW_NETWORKS": json.dumps([f"{HOST}/32"]),
            "IMAGEWIRE_FETCH__PORTS": json.dumps([self.port]),
        }

    @property
    def pid(self) -> int | None:
        """The server's process."""
        return self._process.pid

    async def __aenter__(self) -> Self:
        await self._process.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._process.stop()

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            return False
        writer.close()
        return True


def serve(port: int, delay: float, different: int) -> None:
    """Serve until SIGTERM."""
    photos = load_photos(different=different)

    async def photo(request: web.Request) -> web.Response:
        await asyncio.sleep(delay)
        content = photos.content(int(request.match_info["number"]))
        return web.Response(body=content, content_type="image/jpeg")

    app = web.Application()
    app.router.add_get("/{number:\\d+}.jpg", photo)
    web.run_app(app, host=HOST, port=port, access_log=None, print=None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.photo_server", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--delay", type=float, default=DELAY)
    parser.add_argument("--different", type=int, default=60)
    arguments = parser.parse_args()
    serve(arguments.port, arguments.delay, arguments.different)
