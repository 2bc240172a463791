"""A device that runs out of memory costs nobody a finding, and batches shrink until they fit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import ClassVar

import torch
from faulty_parts import FakeDecoder, FakeFetcher, RecordingSink, frame, until

from models.catalog import Catalog
from models.device import Device
from operators.chain import OperatorChain
from operators.frame import Frame
from operators.operator import Operator
from operators.policy import Policy
from streams.batch_limit import BatchLimit
from streams.metrics import Metrics
from streams.pipeline import Pipeline
from streams.settings import BatchSettings, StreamSettings


class SmallMemory(Operator):
    """Holds `room` pictures at once; one whose bytes say `giant` takes more than all of it."""

    name: ClassVar[str] = "small-memory"

    def __init__(self, room: int) -> None:
        super().__init__({}, Device(torch.device("cpu"), torch.float32), Catalog([]))
        self.room = room
        self.batches: list[int] = []

    def process(self, frames: Sequence[Frame]) -> None:
        self.batches.append(len(frames))
        if len(frames) > self.room or any("giant" in one.image_id for one in frames):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        time.sleep(0.01)  # so that the next batch gathers


async def batches_of(
    operator: SmallMemory, frames: Sequence[Frame]
) -> tuple[RecordingSink, Metrics]:
    sink, metrics = RecordingSink(), Metrics()
    pipeline = Pipeline(
        fetcher=FakeFetcher(),
        decoder=FakeDecoder(),
        chain=OperatorChain([operator], Policy.load()),
        sinks=[sink],
        metrics=metrics,
        stream=StreamSettings(),
        batch=BatchSettings(max_batch=16, max_wait=60, work_conserving=False),
    )
    running = asyncio.create_task(pipeline.run())
    for one in frames:
        await pipeline.submit(one, lambda: None)
    await until(lambda: len(sink.findings) + len(sink.failures) == len(frames), 120)
    running.cancel()
    await asyncio.wait([running])
    return sink, metrics


def value(metrics: Metrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(name)


async def test_after_a_batch_that_did_not_fit_batches_are_as_large_as_what_did() -> None:
    operator = SmallMemory(room=5)
    frames = [frame(f"photo-{n}") for n in range(96)]
    sink, metrics = await batches_of(operator, frames)
    assert sorted(sink.findings) == sorted(one.image_id for one in frames)
    assert sink.failures == []
    assert operator.batches[0] == 16
    # 16 and 8 did not fit, 4 did; from then on nothing is tried in vain.
    assert [size for size in operator.batches if size > 5] == [16, 8, 8]
    assert value(metrics, "imagewire_batch_limit") == 4
    assert value(metrics, "imagewire_out_of_memory_total") == 3


async def test_an_image_too_large_by_itself_is_a_dead_letter_and_does_not_slow_the_others() -> None:
    operator = SmallMemory(room=100)
    frames = [frame("giant" if n == 3 else f"photo-{n}") for n in range(48)]
    sink, metrics = await batches_of(operator, frames)
    assert sink.failures == ["giant"]
    assert len(sink.findings) == 47
    [giant] = [one for one in frames if one.image_id == "giant"]
    assert giant.failure is not None
    assert (giant.failure.stage, giant.failure.reason) == ("small-memory", "out-of-memory")
    assert value(metrics, "imagewire_batch_limit") == 16
    assert operator.batches[-1] == 16


def test_the_limit_grows_back_slowly() -> None:
    now = 0.0
    limit = BatchLimit(16, recovery_seconds=30, clock=lambda: now)
    assert limit.did_not_fit(16) == 8
    now = 29.9
    assert limit.current() == 8
    now = 30.0
    assert limit.current() == 10
    assert limit.did_not_fit(10) == 5
    seen = []
    for _ in range(8):
        now += 30
        seen.append(limit.current())
    assert seen == [7, 9, 11, 13, 15, 16, 16, 16]


def test_a_batch_is_always_at_least_one_image_and_never_grows_by_failing() -> None:
    limit = BatchLimit(8)
    assert [limit.did_not_fit(size) for size in (8, 4, 2, 2, 8)] == [4, 2, 1, 1, 1]
    assert BatchLimit(3).did_not_fit(3) == 2
