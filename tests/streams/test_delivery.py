"""Promises of delivery: a frame is safe when every sink has it, and nothing disappears."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from faulty_parts import RecordingSink, frame, until

from operators.frame import Frame
from sinks.sink import AccessSinkError, PermanentSinkError, TransientSinkError
from streams.delivery import DeadLetterError, Delivery
from streams.metrics import Metrics


class Scene:
    """A delivery at work, and the frames that it called safe."""

    def __init__(self, sinks: Sequence[RecordingSink], **options: Any) -> None:
        self.safe: list[str] = []
        self.written: list[tuple[str, str]] = []
        self.metrics = Metrics()
        self.delivery = Delivery(
            sinks,
            self.metrics,
            on_safe=lambda one: self.safe.append(one.image_id),
            on_written=lambda frames, sink: self.written.extend(
                (sink.name, one.image_id) for one in frames
            ),
            **options,
        )
        self.running: asyncio.Task[None] | None = None

    def deliver(self, *names: str) -> list[Frame]:
        frames = [frame(name) for name in names]
        self.delivery.deliver(frames)
        return frames

    def counted(self, metric: str, sink: str) -> float:
        return self.metrics.registry.get_sample_value(f"imagewire_{metric}", {"sink": sink}) or 0.0


@asynccontextmanager
async def at_work(*sinks: RecordingSink, **options: Any) -> AsyncIterator[Scene]:
    scene = Scene(sinks, **options)
    running = scene.running = asyncio.create_task(scene.delivery.run())
    await asyncio.sleep(0)
    try:
        yield scene
    finally:
        running.cancel()
        await asyncio.wait([running])


def refuses(
    *names: str, findings_only: bool = False, error: Callable[[str], Exception] = PermanentSinkError
) -> Callable[[Sequence[Frame]], Any]:
    async def before(frames: Sequence[Frame]) -> None:
        for one in frames:
            if one.image_id in names and not (findings_only and one.failed):
                raise error(f"cannot hold {one.image_id}")

    return before


async def test_a_frame_is_safe_only_when_every_sink_has_it() -> None:
    kafka, clickhouse, qdrant = sinks = [
        RecordingSink(name) for name in ("kafka", "clickhouse", "qdrant")
    ]
    async with at_work(*sinks) as scene:
        clickhouse.stall()
        qdrant.stall()
        scene.deliver("a", "b")
        await until(lambda: kafka.findings == ["a", "b"])
        qdrant.resume()
        await until(lambda: qdrant.findings == ["a", "b"])
        assert scene.safe == []
        clickhouse.resume()
        await until(lambda: scene.safe == ["a", "b"])
        assert sorted(scene.written) == sorted((s.name, i) for s in sinks for i in "ab")


async def test_a_password_that_was_changed_meanwhile_makes_no_dead_letters(
    no_backoff: None,
) -> None:
    kafka, clickhouse = RecordingSink("kafka"), RecordingSink("clickhouse")
    refused = True

    async def before(frames: Sequence[Frame]) -> None:
        if refused:
            raise AccessSinkError("authentication failed")

    clickhouse.before = before
    async with at_work(kafka, clickhouse) as scene:
        scene.deliver("a", "b")
        await until(lambda: clickhouse.attempts > 5)
        assert "authentication failed" in scene.delivery.troubles()["clickhouse"].error
        assert scene.safe == []
        refused = False
        await until(lambda: scene.safe == ["a", "b"])
        assert kafka.failures == clickhouse.failures == []


async def test_a_store_that_is_away_is_tried_until_it_is_back_while_the_others_go_on(
    no_backoff: None,
) -> None:
    kafka, clickhouse = RecordingSink("kafka"), RecordingSink("clickhouse")
    away = True

    async def before(frames: Sequence[Frame]) -> None:
        if away:
            raise TransientSinkError("connection refused")

    clickhouse.before = before
    async with at_work(kafka, clickhouse) as scene:
        before_trouble = time.time()
        scene.deliver("a")
        await until(lambda: clickhouse.attempts > 20)
        scene.deliver("b")
        await until(lambda: kafka.findings == ["a", "b"])
        assert scene.safe == []
        troubles = scene.delivery.troubles()
        assert list(troubles) == ["clickhouse"]
        assert "connection refused" in troubles["clickhouse"].error
        assert before_trouble <= troubles["clickhouse"].since <= time.time()
        assert scene.counted("sink_retries_total", "clickhouse") > 10
        away = False
        await until(lambda: scene.safe == ["a", "b"])
        assert scene.delivery.troubles() == {}
        assert clickhouse.failures == []


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64])
async def test_only_the_row_that_a_store_refuses_becomes_a_dead_letter(block: int) -> None:
    kafka, clickhouse = RecordingSink("kafka"), RecordingSink("clickhouse")
    clickhouse.before = refuses("guilty", findings_only=True)
    names = [f"n{index}" for index in range(block - 1)]
    names.insert(block // 3, "guilty")
    async with at_work(kafka, clickhouse) as scene:
        frames = scene.deliver(*names)
        await until(lambda: sorted(scene.safe) == sorted(names))
        innocent = [name for name in names if name != "guilty"]
        assert sorted(clickhouse.findings) == sorted(innocent)
        assert clickhouse.failures == ["guilty"]
        assert kafka.failures == ["guilty"]
        failure = frames[block // 3].failure
        assert failure is not None
        assert (failure.stage, failure.reason) == ("sink", "rejected")
        assert "clickhouse" in failure.detail
        assert "cannot hold guilty" in failure.detail
        assert scene.counted("sink_rejections_total", "clickhouse") == 1
        # Halving, not one write a row.
        assert clickhouse.attempts <= 2 * block.bit_length() + 3


async def test_several_guilty_rows_in_one_block_are_all_found() -> None:
    kafka = RecordingSink("kafka")
    kafka.before = refuses("g1", "g2", "g3", findings_only=True)
    async with at_work(kafka) as scene:
        scene.deliver("a", "g1", "g2", "b", "c", "g3")
        await until(lambda: len(scene.safe) == 6)
        assert sorted(kafka.findings) == ["a", "b", "c"]
        assert sorted(kafka.failures) == ["g1", "g2", "g3"]


async def test_a_sink_that_keeps_no_dead_letters_gets_none() -> None:
    kafka, qdrant = RecordingSink("kafka"), RecordingSink("qdrant")
    qdrant.before = refuses("guilty")
    async with at_work(kafka, qdrant) as scene:
        scene.deliver("guilty", "fine")
        await until(lambda: sorted(scene.safe) == ["fine", "guilty"])
        assert kafka.failures == ["guilty"]
        assert qdrant.failures == []


async def test_a_defect_of_a_sink_is_treated_as_a_refusal() -> None:
    kafka, clickhouse = RecordingSink("kafka"), RecordingSink("clickhouse")
    clickhouse.before = refuses("guilty", findings_only=True, error=KeyError)
    async with at_work(kafka, clickhouse) as scene:
        scene.deliver("a", "guilty", "b")
        await until(lambda: len(scene.safe) == 3)
        assert clickhouse.failures == ["guilty"]


async def test_a_frame_that_all_sinks_refuse_at_once_still_gets_its_dead_letter() -> None:
    kafka, clickhouse = RecordingSink("kafka"), RecordingSink("clickhouse")
    both_inside = asyncio.Barrier(2)

    async def before(frames: Sequence[Frame]) -> None:
        if not frames[0].failed:
            await both_inside.wait()
            raise PermanentSinkError("too large")

    kafka.before = clickhouse.before = before
    async with at_work(kafka, clickhouse) as scene:
        scene.deliver("a")
        await until(lambda: scene.safe == ["a"])
        assert "a" in kafka.failures
        assert "a" in clickhouse.failures


async def test_a_dead_letter_that_one_sink_refuses_is_safe_with_the_other() -> None:
    kafka, clickhouse = RecordingSink("kafka"), RecordingSink("clickhouse")
    clickhouse.before = refuses("a")
    async with at_work(kafka, clickhouse) as scene:
        scene.deliver("a", "b")
        await until(lambda: sorted(scene.safe) == ["a", "b"])
        assert kafka.failures == ["a"]
        assert clickhouse.findings == ["b"]


async def test_a_dead_letter_that_no_sink_takes_ends_the_delivery() -> None:
    kafka, clickhouse = RecordingSink("kafka"), RecordingSink("clickhouse")
    kafka.before = clickhouse.before = refuses("a")
    async with at_work(kafka, clickhouse) as scene:
        (lost,) = scene.deliver("a")
        assert scene.running is not None
        with pytest.raises(DeadLetterError) as caught:
            await asyncio.wait_for(asyncio.shield(scene.running), 30)
        assert "cannot hold a" in str(caught.value)
        assert f"images/0/{lost.origin.offset}" in str(caught.value)
        assert scene.safe == []


async def test_frames_gather_into_blocks_for_the_time_of_the_linger() -> None:
    kafka, clickhouse = RecordingSink("kafka"), RecordingSink("clickhouse")
    async with at_work(kafka, clickhouse, linger={"clickhouse": 1.0}) as scene:
        times: list[float] = []

        async def before(frames: Sequence[Frame]) -> None:
            times.append(time.monotonic())

        clickhouse.before = before
        started = time.monotonic()
        for name in "abcde":
            scene.deliver(name)
            await asyncio.sleep(0)
        await until(lambda: len(scene.safe) == 5)
        assert kafka.findings == list("abcde")
        assert times[0] - started >= 0.99
        assert len(clickhouse.blocks) == 1


async def test_a_full_block_does_not_linger() -> None:
    kafka = RecordingSink("kafka")
    async with at_work(kafka, linger={"kafka": 60.0}, block_rows=3) as scene:
        scene.deliver(*"abcdefg")
        await until(lambda: len(scene.safe) == 6)
        assert [len(block) for block in kafka.blocks] == [3, 3]
        scene.delivery.hurry()
        await until(lambda: len(scene.safe) == 7)


async def test_a_block_leaves_before_the_intake_would_pause_for_it() -> None:
    kafka = RecordingSink()
    async with at_work(kafka, linger={"kafka": 60.0}, block_rows=10, enough_rows=2) as scene:
        scene.deliver("a")
        await asyncio.sleep(0.05)
        assert kafka.blocks == []
        scene.deliver("b", "c")
        await until(lambda: kafka.findings == ["a", "b", "c"])
        assert len(kafka.blocks) == 1


async def test_what_comes_thick_and_fast_shares_a_write_and_the_first_does_not_wait() -> None:
    kafka = RecordingSink()
    async with at_work(kafka) as scene:
        scene.deliver("first")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert kafka.findings == ["first"]
        for number in range(5):
            scene.deliver(str(number))
            await asyncio.sleep(0)
        await until(lambda: len(scene.safe) == 6)
        assert len(kafka.blocks) == 2


async def test_frames_that_came_during_a_slow_write_do_not_linger_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kafka = RecordingSink("kafka")
    # The linger passes by the clock that the writer reads, and not in this test's own time.
    passed = 0.0
    monkeypatch.setattr(
        "streams.sink_writer.time",
        SimpleNamespace(
            monotonic=lambda: time.monotonic() + passed,
            perf_counter=time.perf_counter,
            time=time.time,
        ),
    )
    async with at_work(kafka, linger={"kafka": 3600.0}) as scene:
        kafka.stall()
        scene.deliver("a")
        scene.delivery.hurry()
        await until(lambda: kafka.attempts == 1)
        scene.delivery.linger()
        scene.deliver("b")
        passed = 3601.0
        kafka.resume()
        await until(lambda: len(scene.safe) == 2)


async def test_hurry_ends_lingering_for_good() -> None:
    kafka = RecordingSink("kafka")
    async with at_work(kafka, linger={"kafka": 60.0}) as scene:
        scene.deliver("a")
        await asyncio.sleep(0.02)
        assert scene.safe == []
        scene.delivery.hurry()
        await until(lambda: scene.safe == ["a"])
        scene.deliver("b")
        await until(lambda: scene.safe == ["a", "b"])


async def test_a_store_is_left_alone_for_as_long_as_it_asks() -> None:
    kafka = RecordingSink("kafka")
    times: list[float] = []

    async def before(frames: Sequence[Frame]) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            raise TransientSinkError("slow down", retry_after=0.4)

    kafka.before = before
    async with at_work(kafka) as scene:
        scene.deliver("a")
        await until(lambda: scene.safe == ["a"])
        assert 0.39 <= times[1] - times[0] < 60


async def test_the_queue_before_a_sink_is_measured() -> None:
    kafka = RecordingSink("kafka")
    async with at_work(kafka, block_rows=2) as scene:
        kafka.stall()
        scene.deliver(*"abcde")
        await until(lambda: kafka.attempts == 1)
        depth = ("imagewire_queue_depth", {"stage": "kafka"})
        assert scene.metrics.registry.get_sample_value(*depth) == 3
        kafka.resume()
        await until(lambda: len(scene.safe) == 5)
        assert scene.metrics.registry.get_sample_value(*depth) == 0


async def test_a_cancelled_delivery_leaves_no_task_behind() -> None:
    tasks = asyncio.all_tasks()
    kafka = RecordingSink("kafka")
    async with at_work(kafka, linger={"kafka": 60.0}) as scene:
        scene.deliver("a")
        await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == tasks


def test_there_must_be_a_sink() -> None:
    with pytest.raises(ValueError, match="no sink"):
        Delivery([], Metrics(), on_safe=lambda one: None)
