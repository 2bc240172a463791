"""Runs the HTTP API in this process until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn

from imagewire.api.app import make_app
from imagewire.api.connections import bounded_protocol
from imagewire.api.services import Services
from imagewire.settings import ConfigurationError, Settings

logger = logging.getLogger(__name__)

_FAREWELL_SECONDS = 5
"""For answers that are under way when the process is to end; streams end by themselves."""
_LEAVING_SECONDS = 10.0
"""After which the process leaves without what still waits for a store. It keeps nothing: a question
of a minute would only hold up whoever stops the service."""
_IDLE_SECONDS = 30


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn would raise the signal again at the end, and the exit code would be a failure's.
        yield


async def serve(
    settings: Settings, on_listening: Callable[[str, int], None] = lambda host, port: None
) -> None:
    """Serve until SIGTERM or Ctrl-C; then the process ends within seconds, whatever it waits for.

    Args:
        on_listening: is told the address as soon as requests are accepted.

    Raises:
        ConfigurationError: the address cannot be bound, or a key cannot be read.
    """
    services = Services(settings)
    listening = _bound(settings.api.host, settings.api.port)
    try:
        server = _Server(
            uvicorn.Config(
                make_app(services),
                http=bounded_protocol(settings.api.body_timeout),
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                lifespan="on",
                timeout_keep_alive=_IDLE_SECONDS,
                timeout_graceful_shutdown=_FAREWELL_SECONDS,
            )
        )

        def stop() -> None:
            if not services.closing.is_set():
                _leave_in_the_end()
            services.closing.set()
            server.handle_exit(signal.SIGTERM, None)

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        host, port = listening.getsockname()[:2]
        told = asyncio.create_task(_tell(server, lambda: on_listening(host, port)))
        try:
            await server.serve(sockets=[listening])
        finally:
            told.cancel()
        if not server.started:
            raise ConfigurationError("the HTTP API could not be started; the log above says why")
    finally:
        listening.close()


def _leave_in_the_end() -> None:
    """End the process when the time for an orderly end is over: threads cannot be interrupted."""

    def leave() -> None:
        logger.warning("a store did not answer in time; leaving without waiting for it")
        for handler in logging.getLogger().handlers:
            handler.flush()
        os._exit(0)

    leaving = threading.Timer(_LEAVING_SECONDS, leave)
    leaving.daemon = True
    leaving.start()


async def _tell(server: uvicorn.Server, listening: Callable[[], None]) -> None:
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.05)
    listening()


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens there, so that port 0 is known and a taken port is told in words."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"api.host '{host}' is no address: {error}") from error
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        # Two that are only bound may have the same port; once one listens, all others are told.
        bound.listen()
    except OSError as error:
        bound.close()
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another api.port (0 takes "
            "any free one)"
        ) from error
    return bound
