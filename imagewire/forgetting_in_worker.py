"""What was erased, inside a worker: known before its first image, and dropped wherever it turns up.

A worker waits until it has read every tombstone, then follows their topic. A frame that is covered
is dropped when it is taken, else before it is written; findings that are kept for reuse go too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from operators.frame import Frame, Lane, Origin
from sinks.kafka.settings import KafkaSettings
from sinks.sink import Sink
from streams.compacted_topic import CompactedTopic
from streams.ledger import Ledger
from streams.metrics import Metrics
from streams.pipeline import Pipeline
from streams.records import frame_from_record
from streams.reuse import Reuse
from streams.tombstones import Tombstones
from streams.tombstones_sink import WithoutForgotten

_GATHER_SECONDS = 0.5


class ForgettingInWorker:
    """The tombstones of one worker, and everything that respects them."""

    def __init__(self, kafka: KafkaSettings, metrics: Metrics) -> None:
        self.tombstones = Tombstones()
        self._metrics = metrics
        metrics.tombstones.set_function(lambda: len(self.tombstones))
        # News are waited for in the broker: a frame under way should meet its tombstone soon.
        self._topic = CompactedTopic(kafka, kafka.topics.forgotten, self._apply)
        self._news = asyncio.Event()
        self.reuse: Reuse | None = None

    def guarded(self, sinks: Sequence[Sink]) -> list[Sink]:
        """The same sinks, to which nothing that was erased is written."""
        return [
            WithoutForgotten(
                sink,
                self.tombstones,
                # Each frame comes to every sink; it is counted at one.
                self._count if sink.name == "kafka" else lambda frames: None,
            )
            for sink in sinks
        ]

    def dropped(self, frame: Frame, ledger: Ledger, acknowledge: Callable[[], object]) -> bool:
        """Whether a frame just taken was erased; it is acknowledged then, in its order."""
        if not self.tombstones.covers_frame(frame):
            return False
        origin = frame.origin
        entry = ledger.begin((origin.topic, origin.partition), origin.offset, acknowledge)
        ledger.finish(entry)
        self._count([frame])
        return True

    async def take(
        self, pipeline: Pipeline, origin: Origin, lane: Lane, acknowledge: Callable[[], object]
    ) -> None:
        """Turn a record into a frame and give it to the pipeline, unless its image was erased."""
        frame = frame_from_record(origin, lane)
        if not self.dropped(frame, pipeline.ledger, acknowledge):
            await pipeline.submit(frame, acknowledge)

    async def ready(self) -> None:
        """Wait until every tombstone that stands is known. `run` has to be under way."""
        await self._topic.ready()

    async def run(self) -> None:
        """Follow tombstones until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._topic.run(), name="tombstones")
            group.create_task(self._clean_caches(), name="forgetting caches")

    def troubles(self) -> dict[str, str]:
        """What does not work at the moment, and why."""
        return {} if self._topic.trouble is None else {"tombstones": self._topic.trouble}

    def _apply(self, key: bytes | None, value: bytes | None) -> None:
        self.tombstones.apply(key, value)
        self._news.set()

    def _count(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self._metrics.forgotten.labels(self._metrics.feed(frame.feed)).inc()

    async def _clean_caches(self) -> None:
        while True:
            await self._news.wait()
            # Many come together; a look through all findings takes some milliseconds.
            await asyncio.sleep(_GATHER_SECONDS)
            self._news.clear()
            if self.reuse is not None:
                await asyncio.to_thread(self.reuse.forget, self.tombstones.covers)
