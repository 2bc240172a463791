"""The HTTP API in a thread of the tests' own process, for clients that wait for its answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from imagewire.api.app import make_app
from imagewire.api.services import Services


@contextmanager
def served(services: Services) -> Iterator[str]:
    """The address of an API over `services`, on a free port, until the block is left."""
    server = uvicorn.Server(
        uvicorn.Config(make_app(services), host="127.0.0.1", port=0, log_config=None)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 120
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(60)
