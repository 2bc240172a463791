"""The short form of `make chaos`: real parts, two kills and an outage, and every image counted."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from shared_broker import missing

from bench.chaos.producer import Load
from bench.chaos.proxy import Mode
from bench.chaos.stage import Stage


# It takes about a minute alone on two cores, and several beside others that want them.
@pytest.mark.timeout(600)
async def test_no_image_is_lost_or_doubled_when_the_worker_is_killed_and_clickhouse_is_away(
    tmp_path: Path,
) -> None:
    if reason := missing("apache"):
        if os.environ.get("CI"):
            pytest.fail(f"CI must test on Apache Kafka: {reason}")
        pytest.skip(f"Apache Kafka cannot run here: {reason}")

    async with Stage(tmp_path, rate=10.0, objects=False) as stage:
        worker = stage.workers[0]

        async def act(load: Load) -> None:
            await stage.progress(load, 20)
            await stage.clickhouse_proxy.turn(Mode.RESET)
            await asyncio.sleep(2)
            # Its frames are on Kafka and in Qdrant now, but not in ClickHouse.
            worker.kill()
            await asyncio.sleep(1)
            await stage.clickhouse_proxy.turn(Mode.PASS)
            while not worker.running:  # noqa: ASYNC110 - a process has no event
                await asyncio.sleep(0.1)
            await stage.progress(load, 10)
            # It is catching up.
            worker.kill()
            while worker.status().restarts < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

        row = await stage.under_load("killed", act)
        restarts = worker.status().restarts

    assert restarts >= 2
    assert row.published >= 30
    assert (row.lost, row.doubled, row.wrong) == (0, 0, [])
    assert row.stored == row.vectors == row.verdicts == row.published
    assert row.dead_letters == 0
