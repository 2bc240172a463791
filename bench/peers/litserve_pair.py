"""Peer: a LitServe server and, in this process, what feeds it from Kafka and stores its answers.

Polls up to four batches, fetches and posts all their images at the same time, so that the server
always has a batch ready, writes the answers to the stores, commits, and polls again.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

import aiohttp
import msgspec
from aiokafka import AIOKafkaConsumer

from bench.peers.fetching import fetch
from bench.peers.task import BATCH, SESSION_TIMEOUT, WITHIN, Stores, frame_of, read_settings
from operators.findings import Findings
from operators.frame import Failure, Frame


class Answer(msgspec.Struct):
    """What the server says of an image."""

    findings: Findings
    failure: Failure | None


_ANSWER = msgspec.json.Decoder(Answer)


async def ask(session: aiohttp.ClientSession, server: str, frame: Frame) -> None:
    """Fetch an image, post it, and keep the answer."""
    await fetch(session, frame)
    if frame.failed:
        return
    request = {
        "id": frame.image_id,
        "feed": frame.feed,
        "image": base64.b64encode(frame.content or b"").decode(),
    }
    async with session.post(f"{server}/predict", json=request) as response:
        response.raise_for_status()
        answer = _ANSWER.decode(await response.read())
    frame.findings, frame.failure, frame.content = answer.findings, answer.failure, None


async def until_it_answers(session: aiohttp.ClientSession, server: str) -> None:
    """Wait for the server's own health check."""
    while True:
        try:
            async with session.get(f"{server}/health") as response:
                if response.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.2)


async def main() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # In this process group, so that whoever ends the pair ends both.
    serving = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.peers.litserve_server", "--port", str(port))
    )
    server = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as session:
            await until_it_answers(session, server)
            await run(session, server)
    finally:
        serving.terminate()
        await serving.wait()


async def run(session: aiohttp.ClientSession, server: str) -> None:
    """Poll, post, store, commit."""
    settings = read_settings()
    consumer = AIOKafkaConsumer(
        settings.kafka.topics.images,
        bootstrap_servers=settings.kafka.bootstrap_servers,
        group_id=settings.stream.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=int(SESSION_TIMEOUT * 1000),
        heartbeat_interval_ms=int(SESSION_TIMEOUT * 250),
    )
    async with AsyncExitStack() as opened:
        await opened.enter_async_context(consumer)
        stores: Stores | None = None
        while True:
            polled = await consumer.getmany(timeout_ms=int(WITHIN * 1000), max_records=4 * BATCH)
            frames = [
                frame_of(each.topic, each.partition, each.offset, each.timestamp, each.value)
                for records in polled.values()
                for each in records
            ]
            if not frames:
                continue
            await asyncio.gather(*(ask(session, server, frame) for frame in frames))
            if stores is None:
                # The embedder is the server's; what it is called stands in the answers.
                stores = Stores(settings, embedder_of(frames))
                await opened.enter_async_context(stores)
            await stores.write(frames)
            await consumer.commit()


def embedder_of(frames: Sequence[Frame]) -> tuple[str, int] | None:
    """`name@version` and dimension of the model that embedded `frames`, if one did."""
    for frame in frames:
        if (embedding := frame.findings.embedding) is not None:
            return embedding.model, len(embedding.vector)
    return None


if __name__ == "__main__":
    asyncio.run(main())
