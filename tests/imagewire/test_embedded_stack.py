"""The stack comes up whole, tells where it answers, keeps its data, and goes down whole."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import clickhouse_connect
import psutil
import pytest
from qdrant_client import AsyncQdrantClient

from imagewire.embedded.datadir import DirectoryHeldError, find_running
from imagewire.embedded.errors import EmbeddedError
from imagewire.embedded.ports import free_port
from imagewire.embedded.stack import Stack, StackPorts


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def ask(environment: dict[str, str], statement: str) -> object:
    client = clickhouse_connect.get_client(
        host=environment["IMAGEWIRE_CLICKHOUSE__HOST"],
        port=int(environment["IMAGEWIRE_CLICKHOUSE__PORT"]),
        username=environment["IMAGEWIRE_CLICKHOUSE__USERNAME"],
        password=environment["IMAGEWIRE_CLICKHOUSE__PASSWORD"],
    )
    try:
        return client.command(statement)
    finally:
        client.close()


async def test_a_stack_comes_up_keeps_its_rows_over_a_restart_and_leaves_no_process(
    tmp_path: Path,
) -> None:
    before = children()
    port = free_port()
    async with Stack(tmp_path, "tansu", ports=StackPorts(broker=port)) as stack:
        environment = stack.environment()
        assert environment["IMAGEWIRE_KAFKA__BOOTSTRAP_SERVERS"] == f"127.0.0.1:{port}"
        running = find_running(tmp_path)
        assert running is not None
        assert running.broker_address == environment["IMAGEWIRE_KAFKA__BOOTSTRAP_SERVERS"]
        assert set(running.pids) == {"tansu", "clickhouse", "qdrant"}
        assert [status.state for status in stack.status()] == ["running"] * 3
        # They stand back for the models that run beside them.
        priorities = [os.getpriority(os.PRIO_PROCESS, pid) for pid in running.pids.values()]
        assert min(priorities) > os.nice(0) or os.nice(0) == 19

        await asyncio.to_thread(ask, environment, "CREATE DATABASE kept")
        await asyncio.to_thread(
            ask,
            environment,
            "CREATE TABLE kept.rows ENGINE = MergeTree ORDER BY n AS SELECT 7 AS n",
        )
        qdrant = AsyncQdrantClient(
            host=environment["IMAGEWIRE_QDRANT__HOST"],
            grpc_port=int(environment["IMAGEWIRE_QDRANT__GRPC_PORT"]),
            api_key=environment["IMAGEWIRE_QDRANT__API_KEY"],
            prefer_grpc=True,
            https=False,
            check_compatibility=False,
        )
        assert (await qdrant.get_collections()).collections == []
        await qdrant.close()

        with pytest.raises(DirectoryHeldError, match="is held by process"):
            await Stack(tmp_path, "tansu").start()
    assert find_running(tmp_path) is None
    assert children() <= before

    async with Stack(tmp_path, "tansu") as again:
        assert again.environment() == environment
        assert await asyncio.to_thread(ask, environment, "SELECT n FROM kept.rows") == 7
    assert children() <= before


async def test_a_store_that_dies_comes_back_with_its_data(tmp_path: Path) -> None:
    async with Stack(tmp_path, "tansu") as stack:
        environment = stack.environment()
        await asyncio.to_thread(ask, environment, "CREATE DATABASE kept")
        store = stack.record.pids["clickhouse"]
        psutil.Process(store).kill()
        async with asyncio.timeout(120):
            while stack.record.pids.get("clickhouse") in (store, None) or not all(  # noqa: ASYNC110
                status.state == "running" for status in stack.status()
            ):
                await asyncio.sleep(0.05)
        assert await asyncio.to_thread(ask, environment, "EXISTS DATABASE kept") == 1
        published = find_running(tmp_path)
        assert published is not None
        assert published.pids == stack.record.pids
        assert published.pids["clickhouse"] != store


async def test_a_stack_that_cannot_start_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken-broker"
    broken.write_text("#!/bin/sh\necho the storage is on fire\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CALF_TANSU_BIN", str(broken))
    before = children()
    stack = Stack(tmp_path / "data", "tansu")
    with pytest.raises(EmbeddedError, match=r"(?s)tansu ended with exit code 3.*is on fire"):
        await stack.start()
    assert children() <= before
    assert find_running(tmp_path / "data") is None
    stack.directory.acquire()  # it was let go
    stack.directory.release()
