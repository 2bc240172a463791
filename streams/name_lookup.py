"""Looks host names up in threads of its own.

The event loop's own look-ups share a few threads with everything else, the Kafka clients' included,
and a look-up cannot be cancelled: a hostile name server that answers slowly would take them all.
Here it can only slow down other references.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult

_THREADS = 16
"""Half of `fetch.concurrency`'s default; answers are cached for 30 s by the connector."""


class PooledResolver(AbstractResolver):
    """`getaddrinfo` in a pool of its own."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, "look-up")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises `OSError` (`socket.gaierror`) when the name is not known."""
        look_up = functools.partial(
            socket.getaddrinfo,
            host,
            port,
            family=family,
            type=socket.SOCK_STREAM,
            flags=socket.AI_ADDRCONFIG,
        )
        found = await asyncio.get_running_loop().run_in_executor(self._pool, look_up)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
            # A scope id makes an address link-local, which no reference may lead to.
            if kind == socket.AF_INET or (kind == socket.AF_INET6 and not address[3])  # type: ignore[misc]
        ]

    async def close(self) -> None:
        """Let go of the threads; those that still wait for a name server end with it."""
        self._pool.shutdown(wait=False, cancel_futures=True)
