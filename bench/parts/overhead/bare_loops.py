"""What the overhead is measured against: consumers that do nothing with a record.

A plain aiokafka `getmany` loop is the least that Python can do; a Faust agent with an empty body is
what Imagewire's own stream stands on.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer

from bench.laps import Stopwatch, run_laps


async def getmany_loop(order: dict[str, Any]) -> dict[str, Any]:
    """Consume the topic as often as needed: once through it is too short to be timed."""
    watch = Stopwatch(order["warm_up"], order["last"])
    consumer = AIOKafkaConsumer(
        order["topic"],
        bootstrap_servers=order["bootstrap"],
        group_id=order["group"],
        auto_offset_reset="earliest",
        auto_commit_interval_ms=1000,
    )
    await consumer.start()
    try:
        taken = 0
        while not watch.done.is_set():
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for _ in records:
                    taken += 1
                watch.tick(len(records))
            if taken >= order["in_topic"]:
                taken = 0
                await consumer.seek_to_beginning()
    finally:
        await consumer.stop()
    return watch.result()


async def bare_agent(order: dict[str, Any]) -> dict[str, Any]:
    """A Faust agent as its documentation has it: values are taken, and acknowledged by Faust."""
    watch = Stopwatch(order["warm_up"], order["last"])
    with tempfile.TemporaryDirectory(prefix="imagewire-bench-faust-") as datadir:
        app = faust.App(
            order["group"],
            broker=f"kafka://{order['bootstrap']}",
            autodiscover=False,
            store="memory://",
            datadir=datadir,
            web_enabled=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            consumer_auto_offset_reset="earliest",
            broker_commit_interval=1.0,
        )
        topic = app.topic(
            order["topic"], key_serializer="raw", value_serializer="raw", internal=False
        )

        async def nothing(stream: Any) -> None:
            async for _ in stream:
                watch.tick()

        app.agent(topic, name="nothing")(nothing)
        app.finalize()
        await app.start()
        try:
            async with asyncio.timeout(240):
                await watch.done.wait()
        finally:
            await app.stop()
    return watch.result()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loop", choices=("getmany", "faust"))
    run_laps({"getmany": getmany_loop, "faust": bare_agent}[parser.parse_args().loop])
