"""Connections that get nowhere, and clients who do not take what they asked for, are cut off."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from imagewire.api import connections
from imagewire.api.connections import HEAD_BYTES, bounded_protocol

HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Stage:
    """A server whose application answers at once, and reads no body."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/large":
            try:
                while True:
                    body = {"type": "http.response.body", "body": b"x" * 65_536, "more_body": True}
                    await asyncio.sleep(0)
                    await send(body)
                    if (await _soon(receive)) == "http.disconnect":
                        break
            finally:
                self.left.set()
        await send({"type": "http.response.body", "body": b"ok", "more_body": False})


async def _soon(receive: Any) -> str:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            return str((await receive())["type"])
    return ""


@asynccontextmanager
async def serving(stage: Stage, **bounds: Any) -> AsyncIterator[int]:
    config = uvicorn.Config(
        stage,
        http=bounded_protocol(**{"body_seconds": 0.2, "head_seconds": 0.2} | bounds),
        port=0,
        log_config=None,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def _end(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server closes the connection."""
    async with asyncio.timeout(60):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def test_a_request_whose_head_does_not_arrive_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "_BODY_GRACE_SECONDS", 0.2)

    async def connected(port: int, *pieces: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        ended = asyncio.create_task(_end(reader))
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.1)
        try:
            return await ended
        finally:
            writer.close()

    async with serving(Stage()) as port:
        whole = HEAD + b"\r\n"
        drip = [b"x"] * 6
        found = await asyncio.gather(
            connected(port),
            connected(port, HEAD, b"x: ", *drip),
            connected(port, b"\r\n", *[b"\r\n"] * 6),
            connected(port, whole, HEAD, b"x: ", *drip),
            # The body of a request that was answered long ago.
            connected(port, POST, *[b"1\r\nx\r\n"] * 6),
        )
    assert [answer.count(b"200 OK") for answer in found] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("began", [HEAD + b"x: ", HEAD, b"GET /", POST + b"1\r\nx\r\n0\r\nx: "])
async def test_a_head_without_end_is_not_kept(began: bytes) -> None:
    async with serving(Stage(), head_seconds=20, body_seconds=20) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        ended = asyncio.create_task(_end(reader))
        writer.write(began)
        sent = 0
        filler = b"x: y\r\n" * 1000 if began == HEAD else b"y" * 6000
        with contextlib.suppress(ConnectionError):
            while not ended.done() and sent < 100 * HEAD_BYTES:
                writer.write(filler)
                sent += len(filler)
                await writer.drain()
                await asyncio.sleep(0.001)
        assert await ended is not None
        assert sent < 50 * HEAD_BYTES
        writer.close()


async def test_who_does_not_take_an_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "TAKING_SECONDS", 0.3)
    stage = Stage()
    async with serving(stage) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.write(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        async with asyncio.timeout(60):
            await stage.left.wait()
        writer.transport.abort()
        del reader


async def test_there_are_so_many_connections_and_no_more() -> None:
    async with serving(Stage(), most=2, head_seconds=20) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        refused, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await _end(refused) == b""
        writer.close()
        for _, each in held:
            each.write(HEAD + b"connection: close\r\n\r\n")
        assert [(await _end(reader)).count(b"200 OK") for reader, _ in held] == [1, 1]
        for _, each in held:
            each.close()
