"""References to the bench's photos: to files on disk, or to the server that answers after 20 ms."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from bench.photo_server import PhotoServer
from bench.photos import load_photos

Source = Literal["local", "http"]

DIFFERENT = 20
"""Different pictures: rounds of a multiple of this have the same ones in them."""


class References:
    """An async context manager around the photos and their server.

    Args:
        directory: below which files and the server's log are written.
    """

    def __init__(self, directory: Path) -> None:
        self.folder = directory / "photos"
        self._photos = load_photos(different=DIFFERENT)
        self._server = PhotoServer(directory / "logs", different=DIFFERENT)

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._server.__aexit__(kind, error, traceback)

    def environment(self) -> dict[str, str]:
        """Settings that let a worker fetch from the server."""
        return self._server.environment()

    def uri(self, number: int, source: Source) -> str:
        """A reference to photo `number`, whose file is written first if it is to be local.

        No two numbers have the same bytes, so nobody gains by remembering findings.
        """
        if source == "http":
            return self._server.uri(number)
        (path,) = self._photos.write(self.folder, [number])
        return path.as_uri()
