"""A TCP proxy that fails on command, as networks, load balancers and dying servers do.

It stands between the worker and one server. What it does can be changed at any moment; connections
that are open then change with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from enum import StrEnum
from types import TracebackType
from typing import Self

from imagewire.embedded.ports import LOOPBACK, free_port

_CHUNK = 64 * 1024
_UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 12\r\nConnection: close\r\n\r\n"
    b"unavailable\n"
)
# Of a request: past the headers of an HTTP insert or an HTTP/2 call, inside its rows.
_RESET_AFTER_BYTES = 3000


class Mode(StrEnum):
    """What the proxy does with connections, open and new ones."""

    PASS = "pass"
    """Hand everything on."""
    REFUSE = "refuse"
    """Nothing listens, and what was open is reset."""
    HANG = "hang"
    """Accept and swallow: nothing is handed on, nothing answered, nothing closed."""
    UNAVAILABLE = "answer 503"
    """Answer every HTTP request with 503 after taking it."""
    RESET = "reset mid-request"
    """Hand on the beginning of what the client sends, then reset both sides."""
    LOSE_ANSWER = "lose the answer"
    """Hand requests on, then reset the client when the server answers: it was done, and the client
    cannot know."""


class FaultyProxy:
    """A proxy on a port of its own in front of `127.0.0.1:target`. An async context manager."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self.mode = Mode.PASS
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._healed = asyncio.Event()
        self._healed.set()

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._healed.set()
        await self._close()

    async def turn(self, mode: Mode) -> None:
        """Behave like `mode` from now on."""
        was, self.mode = self.mode, mode
        if mode is Mode.HANG:
            self._healed.clear()
        if mode in (Mode.REFUSE, Mode.UNAVAILABLE):
            # A 503 comes from a balancer, which has no connection to carry on.
            await self._close()
        if was is Mode.HANG:
            # What vanished in the meantime is gone, so that connection cannot go on.
            self._reset_all()
            self._healed.set()
        if mode is not Mode.REFUSE and self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port)

    async def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self._reset_all()

    def _reset_all(self) -> None:
        for writer in list(self._writers):
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self.mode is Mode.UNAVAILABLE:
                await _answer_unavailable(reader, writer)
                return
            if self.mode is Mode.HANG:
                await self._healed.wait()
                return
            await self._join(reader, writer)
        except OSError:
            pass  # which is what this proxy is for
        finally:
            self._writers.discard(writer)
            _reset(writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(LOOPBACK, self.target)
        self._writers.add(server_writer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(reader, server_writer, (writer, server_writer), True))
                group.create_task(self._copy(server_reader, writer, (writer, server_writer), False))
        except* OSError:
            pass
        finally:
            self._writers.discard(server_writer)
            _reset(server_writer)

    async def _copy(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        both: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
        from_client: bool,
    ) -> None:
        handed_on = 0
        while data := await source.read(_CHUNK):
            if self.mode is Mode.HANG:
                await self._healed.wait()
                raise ConnectionResetError
            if self.mode is Mode.RESET and from_client:
                left = _RESET_AFTER_BYTES - handed_on
                handed_on += len(data)
                if handed_on >= _RESET_AFTER_BYTES:
                    sink.write(data[: max(left, 0)])
                    with contextlib.suppress(OSError):
                        await sink.drain()
                    for writer in both:
                        _reset(writer)
                    raise ConnectionResetError
            elif self.mode is Mode.LOSE_ANSWER and not from_client:
                for writer in both:
                    _reset(writer)
                raise ConnectionResetError
            else:
                handed_on = 0
            sink.write(data)
            await sink.drain()
        # Each side's end of file ends the pair; none of the protocols here half-closes.
        for writer in both:
            writer.close()


async def _answer_unavailable(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # Take the request until the client pauses, so that the answer is not lost in a reset.
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(0.2):
                if not await reader.read(_CHUNK):
                    break
    writer.write(_UNAVAILABLE)
    await writer.drain()
    writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            while await reader.read(_CHUNK):
                pass


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN, as a killed host's kernel or a firewall does."""
    connection = writer.get_extra_info("socket")
    if connection is not None and not writer.transport.is_closing():
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
