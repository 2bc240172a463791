"""A worker as the product assembles it, whose decoder and operators do nothing.

The decoder hands out one tiny picture. The only operator hands out findings that were made
beforehand (three objects, two lines of text, a vector of 1280 numbers, two scores), so that the
sinks write as much as they do for a photo. Content ids are real: contents differ, so they have to
be hashed, and nothing can be remembered.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import torch

import imagewire.model_copies as model_copies
import imagewire.worker as product
from bench.laps import Stopwatch, run_laps
from bench.no_sink import NoSink
from imagewire.settings import Settings, load_settings
from operators.decode import DecodeLimits
from operators.decoder import Decoder, Encoded
from operators.embedding import EmbeddingOperator
from operators.findings import (
    Detection,
    Embedding,
    Fingerprint,
    ImageInfo,
    TextLine,
)
from operators.frame import Frame
from operators.least_size import LeastSize
from operators.policy import Policy
from sinks.sink import Sink

DIMENSION = 1280
"""Of the default encoder's vectors."""

_OBJECTS = [
    Detection("FACE_FEMALE", 0.91, (10.5, 20.25, 100.125, 200.75)),
    Detection("FACE_MALE", 0.81, (110.5, 20.25, 180.125, 200.75)),
    Detection("FEET_COVERED", 0.41, (10.5, 220.25, 100.125, 300.75)),
]
_TEXTS = [
    TextLine("A line of text that was read", 0.97, ((1, 2), (100, 2), (100, 20), (1, 20))),
    TextLine("and another one below it", 0.93, ((1, 32), (90, 32), (90, 50), (1, 50))),
]
_SCORES = {"nsfw": 0.01, "sharp": 0.7}
_IMAGE = ImageInfo(64, 48, "jpeg", 1500)


class EmptyDecoder(Decoder):
    """Gives every frame the same picture of 2 x 2 pixels."""

    def __init__(self) -> None:
        limits = DecodeLimits()
        super().__init__(torch.device("cpu"), limits, 1)
        self._pixels = torch.zeros((2, 2, 3), dtype=torch.uint8)

    def decode_parts(self, frames: Sequence[Frame]) -> Iterator[list[Frame]]:
        for frame in frames:
            digest = hashlib.sha256(frame.content or b"").hexdigest()
            frame.findings.fingerprint = Fingerprint(digest)
            frame.findings.image = _IMAGE
            frame.pixels = self._pixels
            frame.content = None
        yield list(frames)

    def decode_screened(self, images: Sequence[Encoded]) -> None:
        raise AssertionError("decode_parts does everything")


class EmptyOperator(EmbeddingOperator):
    """Stands where the five operators would; it is an embedding operator, as Qdrant asks for the
    dimension of one."""

    # Equal messages are not to be told apart from different ones.
    depends_on_content_only = False

    def setup(self) -> None:
        numbers = random.Random(4)
        self._vector = [numbers.uniform(-0.05, 0.05) for _ in range(DIMENSION)]

    @property
    def dimension(self) -> int:
        return DIMENSION

    def least_size(self) -> LeastSize | None:
        return None

    def process(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            findings = frame.findings
            findings.objects, findings.texts, findings.scores = _OBJECTS, _TEXTS, _SCORES
            findings.embedding = Embedding(self._card.full_name, self._vector)


class EmptyWorker(product.Worker):
    """The product's worker with the parts above, and a stopwatch at the ledger."""

    def __init__(self, settings: Settings, *, sinks: bool, policy: bool) -> None:
        super().__init__(settings)
        self._without_sinks = not sinks
        if not policy:
            self._chain.use_policy(Policy((), "no-rules"))

    async def _follow_topics(self, stack: AsyncExitStack) -> bool:
        # The Kafka sink makes the topics of bans, reviews and the policy; without it none is there.
        return self._without_sinks or await super()._follow_topics(stack)

    def _sinks(self) -> list[Sink]:
        return [NoSink()] if self._without_sinks else super()._sinks()


def parts_that_do_nothing() -> None:
    """Put them where the product's worker takes its decoder and operators from."""
    build = model_copies.build_operators

    def operators(config: Any, device: Any, catalog: Any) -> list[Any]:
        build({}, device, catalog)  # it checks the device and the catalogue as ever
        return [EmptyOperator({}, device, catalog)]

    model_copies.build_operators = operators
    product.make_decoder = lambda *arguments, **named: EmptyDecoder()


async def lap(order: dict[str, Any]) -> dict[str, Any]:
    """Consume until the stopwatch stops, then stop the worker cleanly.

    What is written goes to topics, a database and a collection of the contestant's own name.
    """
    settings = load_settings().settings
    kafka, name, sinks = settings.kafka, order["name"], order["sinks"]
    written = {topic: f"{name}.{topic}" for topic in type(kafka.topics).model_fields}
    topics = kafka.topics.model_copy(update=written | {"images": order["topic"]})
    changes = {
        "kafka": kafka.model_copy(update={"topics": topics}),
        "stream": settings.stream.model_copy(update={"group": order["group"]}),
        "clickhouse": settings.clickhouse.model_copy(
            update={"enabled": "clickhouse" in sinks, "database": name}
        ),
        "qdrant": settings.qdrant.model_copy(
            update={"enabled": "qdrant" in sinks, "collection": name}
        ),
    }
    settings = settings.model_copy(update=changes)
    watch = Stopwatch(order["warm_up"], order["last"])
    worker = EmptyWorker(settings, sinks=bool(sinks), policy=order["policy"])
    running = asyncio.create_task(worker.run())
    timing = asyncio.create_task(_watch_ledger(worker, watch))
    try:
        async with asyncio.timeout(240):
            await asyncio.wait([running, timing], return_when=asyncio.FIRST_COMPLETED)
    finally:
        worker.stop()
        timing.cancel()
        await running
    return watch.result()


async def _watch_ledger(worker: EmptyWorker, watch: Stopwatch) -> None:
    """Images are finished when their offsets are acknowledged. Looking fifty times a second costs
    nothing that could be measured, and no hook in the product is needed."""
    while not watch.done.is_set():
        await asyncio.sleep(0.02)
        if (pipeline := worker._pipeline) is not None:
            acknowledged = sum(pipeline.ledger.positions().values())
            watch.tick(acknowledged - watch.count)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    parts_that_do_nothing()
    run_laps(lap)
