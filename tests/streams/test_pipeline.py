"""Promises of the pipeline: each frame has its own fate, nothing is lost, nothing piles up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from faulty_parts import FakeChain, FakeDecoder, FakeFetcher, RecordingSink, frame, until

from operators.chain import DeviceLostError
from operators.frame import Frame, Lane
from sinks.sink import PermanentSinkError
from streams.delivery import DeadLetterError
from streams.in_flight import InFlightBudget
from streams.metrics import Metrics
from streams.pipeline import Pipeline
from streams.settings import BatchSettings, StreamSettings

PATIENCE = 60
"""Seconds for which a thread waits to be told to go on: only a test that failed lets them pass."""


class Scene:
    """A pipeline of faulty parts, and the offsets that it acknowledged."""

    def __init__(self, sinks: Sequence[RecordingSink], **settings: Any) -> None:
        self.fetcher, self.decoder, self.chain = FakeFetcher(), FakeDecoder(), FakeChain()
        self.metrics = Metrics()
        self.acknowledged: list[tuple[int, int]] = []
        batch = {"max_batch", "max_wait", "work_conserving"} & set(settings)
        self.pipeline = Pipeline(
            fetcher=self.fetcher,
            decoder=self.decoder,
            chain=self.chain,
            sinks=sinks,
            metrics=self.metrics,
            fetch_concurrency=settings.pop("fetch_concurrency", 32),
            batch=BatchSettings(**{name: settings.pop(name) for name in batch}),
            stream=StreamSettings(**settings),
        )
        self.running: asyncio.Task[None] | None = None

    async def submit(self, *frames: Frame) -> None:
        for one in frames:
            place = (one.origin.partition, one.origin.offset)
            await self.pipeline.submit(one, lambda place=place: self.acknowledged.append(place))

    def value(self, metric: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"imagewire_{metric}", labels) or 0.0


@asynccontextmanager
async def at_work(*sinks: RecordingSink, **settings: Any) -> AsyncIterator[Scene]:
    scene = Scene(sinks, **settings)
    running = scene.running = asyncio.create_task(scene.pipeline.run())
    await asyncio.sleep(0)
    try:
        yield scene
    finally:
        for sink in sinks:
            sink.resume()
        running.cancel()
        await asyncio.wait([running])


def frames(count: int, **options: Any) -> list[Frame]:
    return [frame(str(offset), offset=offset, **options) for offset in range(count)]


async def test_every_frame_reaches_every_sink_and_is_acknowledged_in_order() -> None:
    kafka, clickhouse = RecordingSink("kafka"), RecordingSink("clickhouse")
    async with at_work(kafka, clickhouse, clickhouse_linger=0.01) as scene:
        await scene.submit(*frames(50))
        assert await scene.pipeline.drain(60) == 0
        assert scene.acknowledged == [(0, offset) for offset in range(50)]
        assert sorted(kafka.findings) == sorted(clickhouse.findings)
        assert len(kafka.findings) == 50
        assert scene.value("frames_in_total", feed="test") == 50
        assert scene.value("frames_out_total", feed="test", action="allow") == 50


async def test_a_replay_waited_for_a_person_which_is_no_latency() -> None:
    async with at_work(RecordingSink("kafka")) as scene:
        new, replayed = frames(2)
        now = time.time_ns() // 1_000_000
        new.origin = replace(new.origin, timestamp_ms=now)
        replayed.origin = replace(
            replayed.origin, timestamp_ms=now - 86_400_000, headers=(("imagewire-attempt", b"1"),)
        )
        await scene.submit(new, replayed)
        assert await scene.pipeline.drain(60) == 0
        assert scene.value("latency_seconds_count", feed="test") == 1


@pytest.mark.parametrize(
    ("options", "stage", "reason"),
    [
        ({"uri": "bad:uri"}, "fetch", "not-found"),
        ({"uri": "defect:uri"}, "fetch", "internal-error"),
        ({"value": b"undecodable"}, "decode", "not-an-image"),
        ({"value": b"crash-decoder"}, "decode", "decoder-error"),
        ({"value": b"no-pixels"}, "decode", "decoder-error"),
    ],
)
async def test_a_frame_that_fails_fails_alone(
    options: dict[str, Any], stage: str, reason: str
) -> None:
    kafka = RecordingSink()
    async with at_work(kafka) as scene:
        batch = frames(8)
        batch[3] = frame("3", offset=3, **options)
        await scene.submit(*batch)
        assert await scene.pipeline.drain(60) == 0
        assert kafka.failures == ["3"]
        assert len(kafka.findings) == 7
        failure = batch[3].failure
        assert failure is not None
        assert (failure.stage, failure.reason) == (stage, reason)
        assert scene.acknowledged == [(0, offset) for offset in range(8)]
        assert scene.value("frames_failed_total", feed="test", stage=stage) == 1


async def test_a_record_that_is_none_becomes_a_dead_letter_in_its_turn() -> None:
    kafka = RecordingSink()
    async with at_work(kafka) as scene:
        batch = frames(3)
        batch[1].fail("parse", "not-a-record", "no record")
        await scene.submit(*batch)
        assert await scene.pipeline.drain(60) == 0
        assert kafka.failures == ["1"]
        assert scene.acknowledged == [(0, 0), (0, 1), (0, 2)]


async def test_an_error_of_the_chain_itself_costs_only_the_frame_that_causes_it() -> None:
    kafka = RecordingSink()
    async with at_work(kafka, work_conserving=False, max_wait=0.1) as scene:

        def before(batch: Sequence[Frame]) -> None:
            if any(one.image_id == "3" for one in batch):
                raise RuntimeError("a defect")

        scene.chain.before = before
        batch = frames(8)
        await scene.submit(*batch)
        assert await scene.pipeline.drain(60) == 0
        assert kafka.failures == ["3"]
        assert batch[3].failure is not None
        assert batch[3].failure.stage == "operators"
        assert "a defect" in batch[3].failure.detail


async def test_offsets_are_acknowledged_in_order_although_frames_finish_in_any() -> None:
    kafka = RecordingSink()
    async with at_work(kafka) as scene:
        slow = frame("slow", offset=0, uri="slow:uri")
        await scene.submit(slow, *frames(10)[1:], frame("other", partition=1, offset=7))
        await until(lambda: len(kafka.findings) == 10)
        assert scene.acknowledged == [(1, 7)]
        assert scene.pipeline.ledger.unfinished == 1
        assert scene.pipeline.ledger.in_flight == 10
        scene.fetcher.release.set()
        await until(lambda: len(scene.acknowledged) == 11)
        assert scene.acknowledged[1:] == [(0, offset) for offset in range(10)]


async def test_a_stalled_sink_pauses_intake_and_nothing_piles_up() -> None:
    kafka, qdrant = RecordingSink("kafka"), RecordingSink("qdrant")
    async with at_work(kafka, qdrant, max_in_flight=10, qdrant_linger=0) as scene:
        qdrant.stall()
        submitting = asyncio.create_task(scene.submit(*frames(50)))
        await until(lambda: len(kafka.findings) == 10)
        await asyncio.sleep(0.05)
        assert not submitting.done()
        assert len(kafka.findings) == scene.pipeline.ledger.in_flight == 10
        qdrant.resume()
        await asyncio.wait_for(submitting, 30)
        assert await scene.pipeline.drain(60) == 0
        assert scene.acknowledged == [(0, offset) for offset in range(50)]


async def test_inline_bytes_under_way_are_bounded_but_the_largest_record_still_passes() -> None:
    kafka = RecordingSink()
    mebibyte = 1024 * 1024
    async with at_work(kafka, max_in_flight_bytes=mebibyte) as scene:
        kafka.stall()
        submitting = asyncio.create_task(
            scene.submit(*frames(4, value=b"x" * (600 * 1024)), frame(offset=4, value=b"x" * 2**22))
        )
        await asyncio.sleep(0.05)
        assert scene.pipeline.ledger.in_flight == 1
        kafka.resume()
        await asyncio.wait_for(submitting, 30)
        assert await scene.pipeline.drain(60) == 0
        assert len(scene.acknowledged) == 5


async def test_fetches_are_bounded_for_each_lane_and_bulk_never_holds_up_live() -> None:
    kafka = RecordingSink()
    async with at_work(kafka, fetch_concurrency=3) as scene:
        bulk = [frame(f"b{n}", offset=n, uri="slow:x", lane=Lane.BULK) for n in range(10)]
        await scene.submit(*bulk)
        await until(lambda: scene.fetcher.most_under_way == 3)
        await asyncio.sleep(0.02)
        assert scene.fetcher.most_under_way == 3
        await scene.submit(*[frame(f"l{n}", partition=1, offset=n, uri="ok:x") for n in range(5)])
        await until(lambda: len(scene.acknowledged) == 5)
        scene.fetcher.release.set()
        assert await scene.pipeline.drain(60) == 0
        assert scene.fetcher.most_under_way <= 6


async def test_a_back_fill_costs_a_live_frame_one_batch_at_most() -> None:
    """The batch that is on the device already; a full queue of bulk frames costs nothing."""
    kafka = RecordingSink()
    async with at_work(kafka, max_batch=8) as scene:
        on_device = threading.Semaphore(0)
        proceed = threading.Semaphore(0)

        def before(batch: Sequence[Frame]) -> None:
            on_device.release()
            proceed.acquire(timeout=PATIENCE)

        scene.chain.before = before
        try:
            bulk = [frame(f"b{n}", partition=1, offset=n, lane=Lane.BULK) for n in range(100)]
            await scene.submit(*bulk)
            for _ in range(2):
                await until(lambda: on_device.acquire(blocking=False))
                await asyncio.sleep(0.05)
                live = frame(lane=Lane.LIVE, partition=0)
                await scene.submit(live)
                # Is decoded although the device is busy with bulk: its bytes are let go then.
                await until(lambda live=live: live.content is None)
                proceed.release()
                await until(lambda: on_device.acquire(blocking=False))
                assert live.image_id in scene.chain.batches[-1]
                proceed.release()
        finally:
            proceed.release(1000)
        assert await scene.pipeline.drain(60) == 0
        assert len(kafka.findings) == 102


async def test_the_next_batch_is_decoded_while_the_device_works() -> None:
    kafka = RecordingSink()
    async with at_work(kafka, max_batch=4) as scene:
        on_device, proceed = threading.Event(), threading.Event()

        def before(batch: Sequence[Frame]) -> None:
            on_device.set()
            proceed.wait(PATIENCE)

        scene.chain.before = before
        try:
            await scene.submit(*frames(12))
            await until(on_device.is_set)
            await until(lambda: sum(map(len, scene.decoder.batches)) == 12)
            assert len(scene.chain.batches) == 1
            assert kafka.findings == []
        finally:
            proceed.set()
        assert await scene.pipeline.drain(60) == 0


async def test_the_device_works_on_while_the_policy_decides() -> None:
    kafka = RecordingSink()
    async with at_work(kafka, max_batch=4) as scene:
        proceed = threading.Event()
        scene.chain.before_decision = lambda batch: proceed.wait(PATIENCE) and None
        try:
            await scene.submit(*frames(12))
            await until(lambda: sum(map(len, scene.chain.batches)) == 12)
            assert kafka.findings == []
        finally:
            proceed.set()
        assert await scene.pipeline.drain(60) == 0
        assert len(kafka.findings) == 12


async def test_a_policy_that_is_stuck_stops_the_device_before_findings_pile_up() -> None:
    async with at_work(RecordingSink(), max_batch=1, max_in_flight=100) as scene:
        proceed = threading.Event()
        scene.chain.before_decision = lambda batch: proceed.wait(PATIENCE) and None
        try:
            await scene.submit(*frames(50))
            await asyncio.sleep(0.2)
            assert len(scene.chain.batches) <= 5
        finally:
            proceed.set()
        assert await scene.pipeline.drain(60) == 0


async def test_a_defect_of_the_policy_costs_the_batch_its_findings_and_nobody_else() -> None:
    kafka = RecordingSink()
    async with at_work(kafka, max_batch=1) as scene:

        def break_once(batch: Sequence[Frame]) -> None:
            scene.chain.before_decision = None
            raise RuntimeError("a defect")

        scene.chain.before_decision = break_once
        await scene.submit(*frames(3))
        assert await scene.pipeline.drain(60) == 0
        assert kafka.failures == ["0"]
        assert sorted(kafka.findings) == ["1", "2"]
        assert scene.acknowledged == [(0, 0), (0, 1), (0, 2)]


async def test_what_is_expected_of_the_device_and_how_late_the_loop_is_are_measured() -> None:
    async with at_work(RecordingSink(), max_batch=4) as scene:
        scene.chain.before = lambda batch: time.sleep(0.01)
        await scene.submit(*frames(20))
        assert await scene.pipeline.drain(60) == 0
        assert scene.value("predicted_seconds", stage="operators", batch="4") >= 0.01
        assert scene.value("prediction_ratio_count") >= 1
        await until(lambda: scene.value("event_loop_delay_seconds_count") >= 1)


async def test_one_batch_is_written_while_the_next_is_on_the_device() -> None:
    kafka = RecordingSink()
    async with at_work(kafka, max_batch=4) as scene:
        kafka.stall()
        await scene.submit(*frames(12))
        await until(lambda: sum(map(len, scene.chain.batches)) == 12)
        assert scene.acknowledged == []


async def test_operators_run_on_one_thread_and_never_on_the_loops() -> None:
    kafka = RecordingSink()
    async with at_work(kafka, max_batch=2) as scene:
        await scene.submit(*frames(20))
        assert await scene.pipeline.drain(60) == 0
        assert len(scene.chain.threads) == 1
        assert threading.get_ident() not in scene.chain.threads


async def test_batches_gather_where_full_ones_matter_more() -> None:
    async with at_work(RecordingSink(), max_batch=4, work_conserving=False, max_wait=60) as scene:
        await scene.submit(*frames(10))
        await until(lambda: len(scene.chain.batches) == 2)
        await asyncio.sleep(0.05)
        assert [len(batch) for batch in scene.chain.batches] == [4, 4]
    # What fills no batch leaves when its oldest has waited long enough.
    async with at_work(RecordingSink(), max_batch=4, work_conserving=False, max_wait=0.1) as scene:
        started = time.monotonic()
        await scene.submit(*frames(2))
        assert await scene.pipeline.drain(60) == 0
        assert time.monotonic() - started >= 0.1


async def test_pixels_and_bytes_are_released_on_the_way() -> None:
    kafka = RecordingSink()
    async with at_work(kafka) as scene:
        batch = frames(3)
        await scene.submit(*batch)
        await scene.pipeline.drain(60)
        assert all(one.content is None and one.pixels is None for one in batch)


async def test_draining_waits_no_longer_than_it_may_and_lets_the_rest_go() -> None:
    kafka = RecordingSink()
    async with at_work(kafka) as scene:
        await scene.submit(frame("0", offset=0), frame("1", offset=1, uri="slow:x"))
        await until(lambda: scene.acknowledged)
        started = time.monotonic()
        assert await scene.pipeline.drain(0.1) == 1
        assert time.monotonic() - started < 30
        assert scene.value("frames_dropped_unacknowledged_total") == 1
        # A second drain, as the stream asks for at its end, has nothing to wait for.
        assert await asyncio.wait_for(scene.pipeline.drain(120), 60) == 0
        scene.fetcher.release.set()
        await asyncio.sleep(0.05)
        assert scene.acknowledged == [(0, 0)]


async def test_draining_does_not_wait_for_blocks_to_gather() -> None:
    kafka, clickhouse = RecordingSink("kafka"), RecordingSink("clickhouse")
    async with at_work(kafka, clickhouse, clickhouse_linger=30) as scene:
        for _ in range(2):
            await scene.submit(*frames(3))
            assert await asyncio.wait_for(scene.pipeline.drain(60), 29) == 0
        # And they gather again afterwards.
        await scene.submit(*frames(3))
        await until(lambda: len(kafka.findings) == 9)
        await asyncio.sleep(0.05)
        assert len(clickhouse.findings) == 6


async def test_what_was_let_go_is_not_worked_on_any_more_and_frees_its_room() -> None:
    kafka = RecordingSink()
    async with at_work(kafka, max_in_flight=4, fetch_concurrency=2) as scene:
        await scene.submit(*frames(4, uri="slow:x"))
        assert await scene.pipeline.drain(0.05) == 4
        scene.fetcher.release.set()
        again = frames(8)
        await asyncio.wait_for(scene.submit(*again), 30)
        assert await scene.pipeline.drain(60) == 0
        assert len(kafka.findings) == 8
        assert sum(map(len, scene.chain.batches)) == 8
        assert scene.acknowledged == [(0, offset) for offset in range(8)]


async def test_a_record_that_waited_through_a_rebalance_is_let_go() -> None:
    kafka = RecordingSink()
    async with at_work(kafka, max_in_flight=1) as scene:
        kafka.stall()
        waiting = asyncio.create_task(scene.submit(*frames(2)))
        await asyncio.sleep(0.02)
        assert await scene.pipeline.drain(0.02) == 1
        kafka.resume()
        await asyncio.wait_for(waiting, 30)
        # Kafka delivers both again; were the second still in the ledger, it would come before.
        await scene.submit(*frames(2))
        assert await scene.pipeline.drain(60) == 0
        assert scene.acknowledged == [(0, 0), (0, 1)]


async def test_nothing_is_taken_after_intake_was_stopped_while_what_is_in_flight_goes_on() -> None:
    kafka, clickhouse = RecordingSink("kafka"), RecordingSink("clickhouse")
    async with at_work(kafka, clickhouse, clickhouse_linger=30) as scene:
        await scene.submit(*frames(3))
        scene.pipeline.stop_accepting()
        late = asyncio.create_task(scene.submit(frame("late", offset=3)))
        assert await asyncio.wait_for(scene.pipeline.drain(60), 29) == 0
        assert scene.acknowledged == [(0, 0), (0, 1), (0, 2)]
        assert not late.done()
        late.cancel()


async def test_the_queues_before_the_stages_are_measured() -> None:
    kafka = RecordingSink()
    async with at_work(kafka, max_batch=2) as scene:
        proceed = threading.Event()
        scene.chain.before = lambda batch: proceed.wait(PATIENCE) and None
        try:
            await scene.submit(*frames(20))
            await until(lambda: scene.value("queue_depth", stage="device") == 4)
            await until(lambda: scene.value("queue_depth", stage="decode") == 4)
            assert scene.value("queue_depth", stage="fetch") > 0
        finally:
            proceed.set()
        assert await scene.pipeline.drain(60) == 0
        for stage in ("fetch", "decode", "device", "kafka"):
            assert scene.value("queue_depth", stage=stage) == 0
        assert scene.value("batch_size_sum") == 20
        assert scene.value("stage_seconds_count", stage="operators") >= 10


async def test_a_lost_device_ends_the_pipeline_with_that_very_error() -> None:
    kafka = RecordingSink()
    async with at_work(kafka) as scene:

        def before(batch: Sequence[Frame]) -> None:
            raise DeviceLostError("operator 'objects' lost cuda:0; restart the worker")

        scene.chain.before = before
        await scene.submit(*frames(3))
        assert scene.running is not None
        with pytest.raises(DeviceLostError, match="lost cuda:0"):
            await asyncio.wait_for(asyncio.shield(scene.running), 30)
        assert scene.acknowledged == []
        assert kafka.findings == kafka.failures == []


async def test_a_frame_that_can_be_stored_nowhere_ends_the_pipeline_with_that_very_error() -> None:
    kafka = RecordingSink()

    async def before(batch: Sequence[Frame]) -> None:
        raise PermanentSinkError("not today")

    kafka.before = before
    async with at_work(kafka) as scene:
        await scene.submit(*frames(1))
        assert scene.running is not None
        with pytest.raises(DeadLetterError, match="not today"):
            await asyncio.wait_for(asyncio.shield(scene.running), 30)
        assert scene.acknowledged == []


async def test_an_ended_pipeline_leaves_no_task_and_no_thread() -> None:
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    kafka = RecordingSink()
    async with at_work(kafka, max_batch=2, fetch_concurrency=4) as scene:
        await scene.submit(*frames(8, uri="slow:x"))
        await scene.submit(*frames(8))
        await asyncio.sleep(0.05)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks
    left = [t.name for t in set(threading.enumerate()) - threads]
    assert not [name for name in left if name.startswith(("decode", "device"))]


async def test_the_loop_goes_on_while_an_ended_pipeline_waits_for_its_last_batch() -> None:
    kafka = RecordingSink()
    scene = Scene([kafka])
    running = asyncio.create_task(scene.pipeline.run())
    on_device, proceed = threading.Event(), threading.Event()
    told: list[bool] = []

    def before(batch: Sequence[Frame]) -> None:
        on_device.set()
        told.append(proceed.wait(PATIENCE))

    scene.chain.before = before
    await scene.submit(*frames(1))
    await until(on_device.is_set)
    running.cancel()
    for _ in range(10):
        await asyncio.sleep(0.02)
        assert not running.done()
    proceed.set()
    await asyncio.wait([running], timeout=60)
    assert running.done()
    assert told == [True]  # by a loop that went on, not by the end of its patience


async def test_a_budget_admits_to_its_bounds_and_one_record_of_any_size() -> None:
    budget = InFlightBudget(max_frames=2, max_bytes=100)
    await asyncio.wait_for(budget.acquire(5000), 30)
    for size in (10, 90, 1):
        waiting = asyncio.create_task(budget.acquire(size))
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()
    budget.release(5000)
    await asyncio.wait_for(budget.acquire(10), 30)
    await asyncio.wait_for(budget.acquire(90), 30)
    third = asyncio.create_task(budget.acquire(0))
    await asyncio.sleep(0)
    assert not third.done()
    budget.release(10)
    await asyncio.wait_for(third, 30)
    assert budget.frames == 2
