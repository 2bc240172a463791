"""Fetching for peers: plain reads of local files and HTTP, without any of Imagewire's guards."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp

from operators.frame import Frame, Stage


async def fetch_all(session: aiohttp.ClientSession, frames: Sequence[Frame]) -> None:
    """Fill the content of every frame, all at the same time."""
    await asyncio.gather(*(fetch(session, frame) for frame in frames))


async def fetch(session: aiohttp.ClientSession, frame: Frame) -> None:
    """Fill the content of one frame; one that cannot be had is marked as failed."""
    uri = frame.uri or ""
    try:
        if uri.startswith("file:"):
            frame.content = await asyncio.to_thread(path_of(uri).read_bytes)
        else:
            async with session.get(uri) as response:
                response.raise_for_status()
                frame.content = await response.read()
    except (OSError, aiohttp.ClientError) as error:
        frame.fail(Stage.FETCH, "unreachable", f"{type(error).__name__}: {error}")


def path_of(uri: str) -> Path:
    """The path of a `file:` reference."""
    return Path(unquote(urlsplit(uri).path))
