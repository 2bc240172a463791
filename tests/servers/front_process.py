"""The embedded engines behind their sockets, as child processes for tests."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from imagewire.embedded.ports import LOOPBACK, free_port

START_TIMEOUT = 180.0


def _secret() -> str:
    return secrets.token_urlsafe(12)


@dataclass(frozen=True)
class ClickHouseServer:
    """ClickHouse's HTTP interface: user `writer` may do everything, `analyst` may read."""

    host: str
    port: int
    writer_password: str = field(default_factory=_secret, repr=False)
    analyst_password: str = field(default_factory=_secret, repr=False)


@dataclass(frozen=True)
class QdrantServer:
    """Qdrant's gRPC interface."""

    host: str
    grpc_port: int
    api_key: str = field(default_factory=_secret, repr=False)


@contextmanager
def clickhouse_server(directory: Path) -> Iterator[ClickHouseServer]:
    server = ClickHouseServer(LOOPBACK, free_port())
    environment = {
        "IMAGEWIRE_FRONT_WRITER_PASSWORD": server.writer_password,
        "IMAGEWIRE_FRONT_ANALYST_PASSWORD": server.analyst_password,
    }

    def ready() -> bool:
        try:
            url = f"http://{server.host}:{server.port}/ping"
            return httpx.get(url, trust_env=False, timeout=10).status_code == 200
        except httpx.HTTPError:
            return False

    with _child("clickhouse_front", directory, server.port, environment, ready):
        yield server


@contextmanager
def qdrant_server(directory: Path) -> Iterator[QdrantServer]:
    server = QdrantServer(LOOPBACK, free_port())

    def ready() -> bool:
        try:
            socket.create_connection((server.host, server.grpc_port), timeout=1).close()
        except OSError:
            return False
        return True

    environment = {"IMAGEWIRE_FRONT_API_KEY": server.api_key}
    flags = ("--api-key-variable", "IMAGEWIRE_FRONT_API_KEY")
    with _child("qdrant_front", directory, server.grpc_port, environment, ready, *flags):
        yield server


@contextmanager
def _child(
    module: str,
    directory: Path,
    port: int,
    environment: Mapping[str, str],
    ready: Callable[[], bool],
    *flags: str,
) -> Iterator[None]:
    log = directory / f"{module}.log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            [
                *(sys.executable, "-m", f"imagewire.embedded.{module}"),
                *("--path", str(directory / module), "--host", LOOPBACK, "--port", str(port)),
                *flags,
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while not ready():
            if child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{module} did not start:\n{log.read_text()}")
            time.sleep(0.05)
        yield
    finally:
        child.kill()  # nobody needs what it would put in order before it ends
        child.wait()
