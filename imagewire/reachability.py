"""Says in one sentence that nothing answers, where libraries tell a chain of their own classes.

Somebody who tries a command before `imagewire up`, or in another folder, should read what to do.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from imagewire.connection import DEFAULT_DATA, Connection

Server = Literal["Kafka", "ClickHouse", "Qdrant"]

_TIMEOUT_SECONDS = 3.0


class UnreachableError(Exception):
    """Nothing answers where a command looks for a server."""


@contextmanager
def reaching(connection: Connection, server: Server) -> Iterator[None]:
    """What is done inside needs `server`; errors that come of its absence say so.

    Raises:
        UnreachableError: nothing answers there. Where the address was only assumed this is found
            out first, before anything slow is done.
    """
    addresses = _addresses(connection, server)
    if connection.assumed and _nothing_answers(addresses):
        raise _unreachable(connection, server, addresses)
    try:
        yield
    except Exception as error:
        # After the failure only: a proxy may reach what a plain connection does not.
        if _may_pass(error) and _nothing_answers(addresses):
            raise _unreachable(connection, server, addresses) from error
        raise


def _may_pass(error: Exception) -> bool:
    # Imported here: only a command that failed needs to know.
    from sinks.sink import TransientSinkError

    return isinstance(error, TransientSinkError) or bool(getattr(error, "transient", False))


def _addresses(connection: Connection, server: Server) -> list[tuple[str, int]]:
    """Hosts and ports, of which one must answer; none for an engine in this process."""
    settings = connection.settings
    if server == "ClickHouse":
        inside = settings.clickhouse.interface == "chdb"
        return [] if inside else [(settings.clickhouse.host, settings.clickhouse.port)]
    listed = settings.qdrant.address if server == "Qdrant" else settings.kafka.bootstrap_servers
    found = []
    for address in listed.split(","):
        host, _, port = address.strip().rpartition(":")
        if port.isdigit():
            found.append((host.strip("[]"), int(port)))
    return found


def _nothing_answers(addresses: list[tuple[str, int]]) -> bool:
    return bool(addresses) and not any(_accepts(address) for address in addresses)


def _accepts(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=_TIMEOUT_SECONDS).close()
    except (OSError, UnicodeError):  # UnicodeError: what is no name of a host
        return False
    return True


def _unreachable(
    connection: Connection, server: Server, addresses: list[tuple[str, int]]
) -> UnreachableError:
    listed = ",".join(f"{host}:{port}" for host, port in addresses)
    said = f"nothing answers at {listed} ({server})"
    if connection.assumed:
        return UnreachableError(
            f"{said}, and no stack runs on {DEFAULT_DATA} in this folder: `imagewire up` starts "
            "one, and `--data DIR` names the directory of one that runs elsewhere"
        )
    if connection.stack is not None:
        return UnreachableError(
            f"{said}, although the stack runs as process {connection.stack.pid}: if that part is "
            "being started again, try again in a minute; else look into its log"
        )
    return UnreachableError(f"{said}: start it, or correct its address in the settings")
