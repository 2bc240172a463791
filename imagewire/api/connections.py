"""Connections that get nowhere are closed: whoever opens them needs no key.

uvicorn waits for ever for the rest of a request's head, takes any amount of it, and keeps what a
client does not read. Each costs its sender a few bytes a minute, and the service a descriptor and
memory, until nobody else is let in. So a head has a time and a size, a body a time, and what was
answered must be taken; and there are so many connections and no more.
"""

from __future__ import annotations

import asyncio
import logging
import resource

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

logger = logging.getLogger(__name__)

HEAD_SECONDS = 20.0
"""In which the head of a request must arrive, after the connection was made or since it began."""
HEAD_BYTES = 64 * 1024
"""Of a head, or of what stands between the pieces of a body and after it."""
TAKING_SECONDS = 60.0
"""In which a client must take what waits to be sent, 64 KiB of it."""
_BODY_GRACE_SECONDS = 5.0
"""After a body's time, in which the client is told that it is over."""
_MOST_CONNECTIONS = 2000
_REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


def bounded_protocol(
    body_seconds: float, most: int | None = None, head_seconds: float = HEAD_SECONDS
) -> type[HttpToolsProtocol]:
    """The class of connections for uvicorn.

    Args:
        body_seconds: in which a body must arrive; the gate answers when they are over.
        most: connections at the same time; as many as descriptors allow if not given.
    """
    allowed = _most_connections() if most is None else most

    class Bounded(_Bounded):
        most_connections = allowed
        seconds_for_head = head_seconds
        seconds_for_body = body_seconds + _BODY_GRACE_SECONDS

    return Bounded


def _most_connections() -> int:
    """Half of the descriptors that this process may have: stores, files and pictures need some."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_CONNECTIONS if soft < 0 else min(_MOST_CONNECTIONS, max(soft // 2, 1))


class _Bounded(HttpToolsProtocol):
    most_connections: int
    seconds_for_head: float
    seconds_for_body: float
    _arriving: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None
    _in_body = False
    _of_no_body = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            logger.warning("%d connections are open: no more", self.most_connections)
            transport.abort()
            return
        self._expect(self.seconds_for_head)

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        self._taken()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._arriving is None:  # between requests uvicorn's own time for them runs
            self._expect(self.seconds_for_head)
        self._of_no_body += len(data)
        super().data_received(data)
        if self._of_no_body > HEAD_BYTES and not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(_REFUSAL)
            self._close()

    def on_headers_complete(self) -> None:
        self._of_no_body, self._in_body = 0, True
        self._expect(self.seconds_for_body)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._of_no_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._of_no_body, self._in_body = 0, False
        self._arrived()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._close()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._taking is None:
            self._taking = self.loop.call_later(TAKING_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._taken()
        super().resume_writing()

    def _expect(self, seconds: float) -> None:
        self._arrived()
        self._arriving = self.loop.call_later(seconds, self._too_late)

    def _arrived(self) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None

    def _too_late(self) -> None:
        self._arriving = None
        if not self._in_body and self.cycle is not None and not self.cycle.response_complete:
            # What came is more than the request that is being answered: the answer goes first.
            self._expect(self.seconds_for_head)
        else:
            self._close()

    def _close(self) -> None:
        """Close, once what was answered is taken."""
        self.transport.close()
        if self._taking is None and self.transport.get_write_buffer_size():
            self._taking = self.loop.call_later(TAKING_SECONDS, self.transport.abort)

    def _taken(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None
