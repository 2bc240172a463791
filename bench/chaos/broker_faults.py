"""Apache Kafka is killed and started again; the workers' connection to it is cut."""

from __future__ import annotations

import asyncio

from bench.chaos.producer import Load
from bench.chaos.proxy import Mode
from bench.chaos.report import Row
from bench.chaos.stage import Stage


async def broker_killed(stage: Stage, kills: int, seconds: float) -> Row:
    """kill -9 of the broker; it is started again after `seconds`."""

    async def act(load: Load) -> None:
        for number in range(kills):
            await stage.progress(load, 30)
            stage.report(f"kill -9 of Apache Kafka, {number + 1} of {kills}")
            stage.kafka.kill()
            await asyncio.sleep(seconds)
            await stage.kafka.start()
        await stage.progress(load, 60)

    row = await stage.under_load(f"Apache Kafka killed with -9, {kills} times", act)
    row.note = f"down for {seconds:g} s and its start each time"
    return row


async def connection_cut(stage: Stage, seconds: float) -> Row:
    """Nothing passes between the workers and Kafka, in either direction, and nothing says so."""

    async def act(load: Load) -> None:
        await stage.progress(load, 30)
        stage.report(f"the workers' connection to Kafka cut for {seconds:g} s")
        await stage.kafka_proxy.turn(Mode.HANG)
        try:
            await asyncio.sleep(seconds)
        finally:
            await stage.kafka_proxy.turn(Mode.PASS)
        await stage.progress(load, 60)

    restarts = stage.workers[0].status().restarts
    row = await stage.under_load(f"connection to Kafka cut for {seconds:g} s", act)
    row.note = f"worker restarts {stage.workers[0].status().restarts - restarts}"
    return row
