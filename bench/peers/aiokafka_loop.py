"""Peer: a plain aiokafka consumer. `getmany`, fetch, look, store, commit, and round again.

Fetches a batch's references at the same time (`asyncio.gather`); nothing else overlaps.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import aiohttp
from aiokafka import AIOKafkaConsumer

from bench.peers.fetching import fetch_all
from bench.peers.task import BATCH, SESSION_TIMEOUT, WITHIN, Eyes, Stores, frame_of, read_settings


async def main() -> None:
    settings = read_settings()
    loop = asyncio.get_running_loop()
    # One thread for the operators, so that the consumer's heartbeats go on beside them.
    device = ThreadPoolExecutor(1)
    eyes = await loop.run_in_executor(device, Eyes, settings)
    consumer = AIOKafkaConsumer(
        settings.kafka.topics.images,
        bootstrap_servers=settings.kafka.bootstrap_servers,
        group_id=settings.stream.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=int(SESSION_TIMEOUT * 1000),
        heartbeat_interval_ms=int(SESSION_TIMEOUT * 250),
    )
    async with (
        Stores(settings, eyes.embedding_model()) as stores,
        aiohttp.ClientSession() as session,
        consumer,
    ):
        while True:
            polled = await consumer.getmany(timeout_ms=int(WITHIN * 1000), max_records=BATCH)
            frames = [
                frame_of(each.topic, each.partition, each.offset, each.timestamp, each.value)
                for records in polled.values()
                for each in records
            ]
            if not frames:
                continue
            await fetch_all(session, frames)
            await loop.run_in_executor(device, eyes.look, frames)
            await stores.write(frames)
            await consumer.commit()


if __name__ == "__main__":
    asyncio.run(main())
