"""`imagewire serve` as a child of the stack.

It is a process of its own, since pictures of strangers are looked at in it, and it reads ClickHouse
as the user who may only read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from imagewire.embedded.answering import http_ok
from imagewire.embedded.ports import LOOPBACK
from imagewire.embedded.process import ManagedProcess, RestartPolicy
from imagewire.native_environment import native_environment

_START_TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class ApiPlace:
    """Where the API can be reached from this machine; `host` as it stands in a URL."""

    host: str
    port: int


def api_process(
    place: ApiPlace,
    environment: Mapping[str, str],
    *,
    log_directory: Path,
    restart: RestartPolicy | None,
) -> ManagedProcess:
    """The child, not yet started.

    Args:
        environment: settings that point it to the stores.
    """
    own = {**environment, "IMAGEWIRE_API__PORT": str(place.port)}
    command: Sequence[str] = [sys.executable, "-m", "imagewire", "serve"]

    async def ready() -> bool:
        # Another stack's API may have taken the port meanwhile, and answers just as well.
        answers = await http_ok(f"http://{place.host}:{place.port}/healthz")
        return answers and _listens(process.pid, place.port)

    process = ManagedProcess(
        "api",
        command,
        log_directory=log_directory,
        environment={**inherited(own), **native_environment(os.environ), **own},
        ready=ready,
        start_timeout=_START_TIMEOUT,
        restart=restart,
    )
    return process


def _listens(pid: int | None, port: int) -> bool:
    if pid is None:
        return False
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.NoSuchProcess:
        return False
    return any(
        each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port
        for each in connections
    )


def inherited(own: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what `own` settles, whatever file names a secret."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.upper().removesuffix("_FILE") not in own
    }


def reachable_host(host: str) -> str:
    """Where a server that is bound to `host` can be reached from this machine, for a URL."""
    bare = host.strip("[]")
    if bare == "0.0.0.0":  # noqa: S104 - compared, not bound to
        return LOOPBACK
    if bare == "::":
        return "[::1]"
    return f"[{bare}]" if ":" in bare else bare
