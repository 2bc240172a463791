"""What every broker of the embedded stack offers, whichever program stands behind it.

Apache Kafka, tansu and a broker that somebody else runs are used in the same way: start it, give
its address to the worker, stop it. What differs is stated as data (`durable`,
`supports_idempotence`), so that callers ask for the property and not for the program.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from typing import ClassVar

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from imagewire.embedded.errors import EmbeddedError
from imagewire.embedded.process import ManagedProcess


class BrokerError(EmbeddedError):
    """The broker cannot be started or reached."""


class Broker(ABC):
    """A Kafka broker.

    Attributes:
        name: "apache", "tansu" or "external".
        durable: whether acknowledged records survive the broker's own death and restart.
        supports_idempotence: whether idempotent and transactional producers work.
        process: the child that runs it; None for a broker that is not ours.
    """

    name: ClassVar[str]
    durable: bool
    supports_idempotence: bool
    process: ManagedProcess | None = None

    @property
    @abstractmethod
    def address(self) -> str:
        """`HOST:PORT` for `bootstrap.servers`."""

    @abstractmethod
    async def start(self) -> None:
        """Start it and wait until it answers metadata requests.

        Raises:
            BrokerError, ProcessError: it does not; the message has the tail of its log.
        """

    async def stop(self) -> None:
        """Shut it down in order; a broker that is not ours is left alone."""
        if self.process is not None:
            await self.process.stop()

    def kill(self) -> None:
        """Kill it at once (`kill -9`); `start` brings it back. Only for a broker of our own."""
        if self.process is None:
            raise BrokerError(f"the broker at {self.address} is not ours to kill")
        self.process.kill()


class ExternalBroker(Broker):
    """A broker that somebody else runs: it is only checked, never started or stopped."""

    name = "external"
    durable = True
    supports_idempotence = True

    def __init__(self, address: str, *, timeout: float = 10.0) -> None:
        self._address = address
        self._timeout = timeout

    @property
    def address(self) -> str:
        return self._address

    async def start(self) -> None:
        deadline = asyncio.get_running_loop().time() + self._timeout
        while not await answers(self._address):
            if asyncio.get_running_loop().time() > deadline:
                raise BrokerError(
                    f"no Kafka broker answers at {self._address} after {self._timeout:g} s; "
                    "check the address, that the broker runs, and that its advertised listener "
                    "can be reached from here"
                )
            await asyncio.sleep(0.2)


async def answers(address: str) -> bool:
    """Whether a broker accepts clients: it answers and names the brokers of its cluster.

    Args:
        address: `HOST:PORT`, or several by commas, of which one must answer.
    """
    # A refused connection is cheaper to see here than through the client, which logs each one.
    open_addresses = [part for part in address.split(",") if await _accepts(part.strip())]
    if not open_addresses:
        return False
    client = AIOKafkaClient(bootstrap_servers=open_addresses, request_timeout_ms=3000)
    try:
        await client.bootstrap()
        return bool(client.cluster.brokers())
    except (KafkaError, OSError):
        return False
    finally:
        await client.close()


async def _accepts(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(2):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
