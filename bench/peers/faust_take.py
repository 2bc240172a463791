"""Peer: a Faust agent that gathers its batches with `take`.

`take_events` is `take` with the records' offsets. Fetches a batch's references at the same time
(`asyncio.gather`); while a batch is worked on, Faust reads ahead, and nothing else overlaps.
"""

from __future__ import annotations

import asyncio
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import faust

from bench.peers.fetching import fetch_all
from bench.peers.task import BATCH, SESSION_TIMEOUT, WITHIN, Eyes, Stores, frame_of, read_settings


async def main() -> None:
    settings = read_settings()
    loop = asyncio.get_running_loop()
    # One thread for the operators, so that Faust's own tasks go on beside them.
    device = ThreadPoolExecutor(1)
    eyes = await loop.run_in_executor(device, Eyes, settings)
    with tempfile.TemporaryDirectory() as directory:
        app = faust.App(
            settings.stream.group,
            broker=f"kafka://{settings.kafka.bootstrap_servers}",
            value_serializer="raw",
            autodiscover=False,
            datadir=directory,
            web_enabled=False,
            topic_disable_leader=True,
            topic_allow_declare=False,
            broker_session_timeout=SESSION_TIMEOUT,
            broker_heartbeat_interval=SESSION_TIMEOUT / 4,
            broker_commit_interval=1.0,
            consumer_auto_offset_reset="earliest",
        )
        topic = app.topic(settings.kafka.topics.images, value_serializer="raw")
        async with (
            Stores(settings, eyes.embedding_model()) as stores,
            aiohttp.ClientSession() as session,
        ):

            @app.agent(topic)
            async def images(stream: Any) -> None:
                async for events in stream.take_events(BATCH, within=WITHIN):
                    messages = [event.message for event in events]
                    frames = [
                        frame_of(
                            each.topic,
                            each.partition,
                            each.offset,
                            int(each.timestamp * 1000),
                            each.value,
                        )
                        for each in messages
                    ]
                    await fetch_all(session, frames)
                    await loop.run_in_executor(device, eyes.look, frames)
                    await stores.write(frames)

            worker = faust.Worker(app, loglevel="WARNING", override_logging=False, loop=loop)
            await worker.start()


if __name__ == "__main__":
    asyncio.run(main())
