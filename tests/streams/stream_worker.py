"""A worker of faulty parts on a real broker, in the test's process or as a process to be killed.

As a script it writes a line for each record that it takes, and it never finishes an image whose
bytes begin with `stuck`.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

from faulty_parts import FakeChain, FakeDecoder, FakeFetcher, RecordingSink

from operators.frame import Lane, Origin
from sinks.kafka.settings import KafkaSettings, TopicNames
from streams.app import ImageStream
from streams.metrics import Metrics
from streams.pipeline import Pipeline
from streams.records import frame_from_record
from streams.settings import BatchSettings, StreamSettings


def kafka_settings(address: str, prefix: str, partitions: int = 2) -> KafkaSettings:
    names = {name: f"{prefix}.{name}" for name in TopicNames.model_fields}
    return KafkaSettings(
        bootstrap_servers=address, topics=TopicNames(**names), partitions=partitions
    )


class StreamWorker:
    """An `ImageStream` before a pipeline whose only sink records."""

    def __init__(self, kafka: KafkaSettings, group: str, **settings: Any) -> None:
        self.stream_settings = StreamSettings(
            group=group,
            **{
                # A worker that does not answer for so long has its records delivered again.
                "session_timeout": 4.0,
                "commit_interval": 0.2,
                "drain_timeout": 5.0,
                **settings,
            },
        )
        self.sink = RecordingSink()
        self.chain = FakeChain()
        self.fetcher = FakeFetcher()
        self.metrics = Metrics()
        self.taken: list[tuple[Origin, Lane]] = []
        self.acknowledged: list[tuple[str, int, int]] = []
        self.blocks: list[Any] = []
        self.ahead = 0.0
        self.pipeline = Pipeline(
            fetcher=self.fetcher,
            decoder=FakeDecoder(),
            chain=self.chain,
            sinks=[self.sink],
            metrics=self.metrics,
            stream=self.stream_settings,
            batch=BatchSettings(),
        )
        self.stream = ImageStream(
            kafka,
            self.stream_settings,
            handle=self._take,
            drain=functools.partial(self.pipeline.drain, self.stream_settings.drain_timeout),
            ahead=lambda: self.ahead,
        )

    async def _take(self, origin: Origin, lane: Lane, acknowledge: Any) -> None:
        self.taken.append((origin, lane))
        block = acknowledge.func.__self__  # of its Block
        if block not in self.blocks:
            self.blocks.append(block)

        def acknowledged() -> None:
            self.acknowledged.append((origin.topic, origin.partition, origin.offset))
            acknowledge()

        await self.pipeline.submit(frame_from_record(origin, lane), acknowledged)


@asynccontextmanager
async def running(worker: StreamWorker) -> AsyncIterator[StreamWorker]:
    """Start the worker; stop it in the way that `imagewire.worker` does."""
    working = asyncio.create_task(worker.pipeline.run())
    try:
        await worker.stream.start()
        watching = asyncio.create_task(worker.stream.watch())
        yield worker
        worker.pipeline.stop_accepting()
        await worker.pipeline.drain(worker.stream_settings.drain_timeout)
    finally:
        await worker.stream.stop()
        working.cancel()
        await asyncio.wait([working])
    await asyncio.wait_for(watching, 30)


async def main(address: str, prefix: str, group: str) -> None:
    worker = StreamWorker(kafka_settings(address, prefix), group)
    never = asyncio.Event()

    async def before(frames: Any) -> None:
        for frame in frames:
            if (frame.origin.value or b"").startswith(b"stuck"):
                await never.wait()

    worker.sink.before = before
    async with running(worker):
        shown = 0
        while True:
            await asyncio.sleep(0.01)
            for origin, _ in worker.taken[shown:]:
                print("taken", origin.topic, origin.partition, origin.offset, flush=True)
            shown = len(worker.taken)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
