"""Free TCP ports on the loopback address, for children that must be told their port beforehand.

A broker advertises its own address, so it cannot be started on port 0. Ports are taken from below
the kernel's ephemeral range: one from inside it could be given to any outgoing connection between
the moment it is chosen and the moment the child binds it, or while the stack is down.
"""

from __future__ import annotations

import random
import socket

LOOPBACK = "127.0.0.1"

# Linux hands out 32768-60999 to outgoing connections (net.ipv4.ip_local_port_range), macOS and
# BSD 49152-65535; below 20000 most registered services live.
FIRST_PORT, LAST_PORT = 20_000, 32_000

_given: set[int] = set()


class NoFreePortError(OSError):
    """Not one port of the range can be bound: the message names the range."""


def is_free(port: int) -> bool:
    """Whether a server could bind `port` on the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connections linger in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port(preferred: int | None = None) -> int:
    """A port that can be bound now: `preferred` if that is free, else one chosen at random.

    A port that was chosen is not chosen again by this process, so that several children can be
    given theirs before the first of them binds.

    Raises:
        NoFreePortError: the whole range is taken.
    """
    if preferred is not None and is_free(preferred):
        _given.add(preferred)
        return preferred
    candidates = [port for port in range(FIRST_PORT, LAST_PORT) if port not in _given]
    random.shuffle(candidates)
    for port in candidates:
        if is_free(port):
            _given.add(port)
            return port
    raise NoFreePortError(
        f"no free TCP port on {LOOPBACK} between {FIRST_PORT} and {LAST_PORT}; "
        "stop programs that hold them (ss -ltnp lists them) or name ports in the settings"
    )
