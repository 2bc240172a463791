"""Promises of batching, on a clock of the test's own: what closes a batch, and who leaves in it."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.frame import Frame, Lane, Origin
from streams.batcher import BatchLimits, BatchQueue, MicroBatcher

_offsets = itertools.count()


def frame(received_at: float = 0.0, size: int = 1, lane: Lane = Lane.LIVE) -> Frame:
    origin = Origin("images", 0, next(_offsets), 0)
    return Frame(
        image_id=origin.derived_id(),
        feed="test",
        event_time_ms=0,
        origin=origin,
        lane=lane,
        content=b"x" * size,
        received_at=received_at,
    )


def size_of(one: Frame) -> int:
    return len(one.content or b"")


def queue(predict: Callable[[int], float] = lambda n: 0.0, **limits: Any) -> BatchQueue:
    return BatchQueue(BatchLimits(**{"work_conserving": False, **limits}), size_of, predict)


NOW = float("-inf")


def test_nothing_closes_while_nothing_waits() -> None:
    assert queue().closes_at() is None
    assert queue().cut() == []


def test_a_full_batch_closes_at_once() -> None:
    waiting = queue(max_batch=3, max_wait=1.0)
    for _ in range(2):
        waiting.add(frame(5.0))
    assert waiting.closes_at() == 6.0
    waiting.add(frame(5.0))
    assert waiting.closes_at() == NOW


def test_enough_bytes_close_a_batch_at_once() -> None:
    waiting = queue(max_batch_bytes=100, max_wait=1.0)
    waiting.add(frame(5.0, size=60))
    assert waiting.closes_at() == 6.0
    waiting.add(frame(5.0, size=40))
    assert waiting.closes_at() == NOW


def test_age_is_that_of_the_oldest_frame_wherever_it_stands() -> None:
    waiting = queue(max_wait=1.0)
    waiting.add(frame(5.0))
    waiting.add(frame(3.0))  # received before, fetched after
    waiting.add(frame(4.0, lane=Lane.BULK))
    assert waiting.closes_at() == 4.0


def test_the_time_that_the_device_will_need_is_taken_off_the_wait() -> None:
    waiting = queue(predict=lambda n: 0.1 * n, max_wait=1.0)
    waiting.add(frame(5.0))
    assert waiting.closes_at() == pytest.approx(5.9)
    waiting.add(frame(5.5))
    assert waiting.closes_at() == pytest.approx(5.8)


def test_a_free_device_takes_what_is_ready_when_work_conserving() -> None:
    waiting = queue(work_conserving=True, max_wait=60.0)
    waiting.add(frame(5.0))
    assert waiting.closes_at() == NOW


def test_live_frames_leave_first_and_bulk_fills_what_is_left() -> None:
    waiting = queue(max_batch=3)
    bulk = [frame(0.0, lane=Lane.BULK) for _ in range(3)]
    live = [frame(1.0) for _ in range(2)]
    for one in bulk + live:
        waiting.add(one)
    assert waiting.cut() == [*live, bulk[0]]
    assert waiting.cut() == bulk[1:]


def test_a_batch_never_exceeds_its_bytes_unless_one_frame_does() -> None:
    waiting = queue(max_batch_bytes=100)
    frames = [frame(size=size) for size in (250, 60, 60, 40)]
    for one in frames:
        waiting.add(one)
    assert waiting.cut() == frames[:1]
    assert waiting.cut() == frames[1:2]
    assert waiting.cut() == frames[2:]


def test_bulk_never_enters_a_batch_before_a_live_frame_that_did_not_fit() -> None:
    waiting = queue(max_batch_bytes=100)
    first, second, bulk = frame(size=60), frame(size=60), frame(size=10, lane=Lane.BULK)
    for one in (bulk, first, second):
        waiting.add(one)
    assert waiting.cut() == [first]
    assert waiting.cut() == [second, bulk]


def test_limits_that_admit_no_frame_are_refused() -> None:
    for wrong in ({"max_batch": 0}, {"max_batch_bytes": 0}, {"max_wait": -1.0}):
        with pytest.raises(ValueError, match="must be at least"):
            BatchLimits(**wrong)  # type: ignore[arg-type]


def test_while_live_frames_come_bulk_may_only_add_what_hardly_takes_longer() -> None:
    waiting = queue(predict=lambda n: 1.0 + 0.1 * n, max_batch=8)
    bulk = [frame(lane=Lane.BULK) for _ in range(100)]
    live = [frame() for _ in range(6)]
    for one in bulk:
        waiting.add(one)
    assert waiting.cut(0.0) == bulk[:8]  # nothing live is about
    for one in live[:2]:
        waiting.add(one)
    assert waiting.cut(1.0) == [*live[:2], *bulk[8:11]]
    assert waiting.cut(2.0) == bulk[11:14], "a quarter more than a frame alone takes"
    for one in live[2:]:
        waiting.add(one)
    assert waiting.cut(3.0) == [*live[2:], *bulk[14:17]]
    assert [len(waiting.cut(now)) for now in (4.0, 12.9, 13.0)] == [3, 3, 8]


def _slowest_in_a_hundred(
    service: Callable[[int], float], takers: int, pauses: list[float], backlog: bool
) -> float:
    waited: list[float] = []

    async def scene(loop: VirtualTime) -> None:
        batches = batcher(
            loop,
            max_batch=16,
            work_conserving=True,
            takers=takers,
            max_frames=32,
            predict=service,
        )

        async def come() -> None:
            for pause in pauses:
                await asyncio.sleep(pause)
                await batches.put(frame(loop.time()))

        async def pile_up() -> None:
            while True:
                await batches.put(frame(loop.time(), lane=Lane.BULK))

        async def work(number: int) -> None:
            while True:
                batch = await batches.take(bulk_alone=number == 0)
                await asyncio.sleep(service(len(batch)))
                waited.extend(loop.time() - f.received_at for f in batch if f.lane is Lane.LIVE)

        busy = [asyncio.create_task(work(number)) for number in range(takers)]
        if backlog:
            busy.append(asyncio.create_task(pile_up()))
        await come()
        await asyncio.sleep(10)  # nothing takes so long
        assert len(waited) == len(pauses)
        for task in busy:
            task.cancel()

    in_virtual_time(scene)
    return sorted(waited)[-len(waited) // 100]


@pytest.mark.parametrize("takers", [1, 2, 4])
@pytest.mark.parametrize(
    "service",
    [lambda n: 0.028 + 0.024 * n, lambda n: 0.012 + 0.001 * n],
    ids=["a processor", "a GPU"],
)
def test_a_backlog_of_bulk_leaves_live_latency_within_one_and_a_half_times_its_idle_value(
    service: Callable[[int], float], takers: int
) -> None:
    """The target of `make bench ONLY=lanes`, as far as it is up to batching."""
    rate = 0.1 * takers * 16 / service(16)
    generator = random.Random(1)
    pauses = [generator.expovariate(rate) for _ in range(2000)]
    idle, beside_bulk = (
        _slowest_in_a_hundred(service, takers, pauses, backlog) for backlog in (False, True)
    )
    assert beside_bulk <= 1.5 * idle


async def test_one_taker_is_enough_for_bulk_while_live_frames_come() -> None:
    now = 0.0
    limits = BatchLimits(max_batch=4, takers=2)
    batcher = MicroBatcher(limits, size_of, max_frames=9, max_bytes=99, clock=lambda: now)
    await batcher.put(frame())
    await batcher.take()
    for _ in range(4):
        await batcher.put(frame(lane=Lane.BULK))
    spare = asyncio.create_task(batcher.take(bulk_alone=False))
    await asyncio.sleep(0)
    assert not spare.done()
    assert (await batcher.take())[0].lane is Lane.BULK
    live = frame()
    await batcher.put(live)
    assert (await asyncio.wait_for(spare, 30))[0] is live
    now = 60.0
    assert (await batcher.take(bulk_alone=False))[0].lane is Lane.BULK, "no live ones come now"


def test_bulk_that_waits_leaves_each_taker_its_share_of_the_live_frames() -> None:
    waiting = queue(lambda n: float(n), work_conserving=True, max_batch=16, takers=2)
    live = [frame() for _ in range(8)]
    for one in live:
        waiting.add(one)
    for _ in range(40):
        waiting.add(frame(lane=Lane.BULK))
    first, second = waiting.cut(0.0), waiting.cut(0.0)
    assert first[:4] == live[:4]
    assert second[:2] == live[4:6]
    assert [len(first), len(second)] == [5, 2], "a quarter more by bulk"


_waiting = st.lists(
    st.tuples(st.floats(0, 10), st.integers(0, 120), st.sampled_from(Lane)), max_size=30
)


@given(_waiting, st.integers(1, 8), st.integers(1, 300), st.floats(0, 2), st.booleans())
def test_bulk_never_delays_live(
    arrivals: list[tuple[float, int, Lane]],
    max_batch: int,
    max_bytes: int,
    service: float,
    work_conserving: bool,
) -> None:
    """Batch by batch, the same live frames leave as if there were no bulk, and no later."""
    frames = [frame(*arrival) for arrival in arrivals]
    with_bulk, without = (
        queue(
            lambda n: service * n,
            max_batch=max_batch,
            max_batch_bytes=max_bytes,
            max_wait=1.0,
            work_conserving=work_conserving,
        )
        for _ in range(2)
    )
    for one in frames:
        with_bulk.add(one)
        if one.lane is Lane.LIVE:
            without.add(one)
    while len(without):
        assert len(with_bulk) >= len(without)
        closes, alone = with_bulk.closes_at(), without.closes_at()
        assert closes is not None
        assert alone is not None
        assert closes <= alone
        batch = with_bulk.cut()
        live = [one for one in batch if one.lane is Lane.LIVE]
        assert live == without.cut()
        # What bulk adds hardly keeps the next live frame waiting.
        assert len(batch) == len(live) or service * len(batch) <= 1.25 * service * len(live)


_arrivals = st.lists(
    st.tuples(st.floats(0, 10), st.integers(0, 120), st.sampled_from(Lane)), max_size=40
)


@given(_arrivals, st.integers(1, 8), st.integers(1, 200), st.lists(st.booleans(), max_size=80))
def test_no_frame_is_lost_or_doubled_and_lanes_keep_their_order(
    arrivals: list[tuple[float, int, Lane]], max_batch: int, max_bytes: int, cuts: list[bool]
) -> None:
    waiting = queue(max_batch=max_batch, max_batch_bytes=max_bytes)
    frames = [frame(*arrival) for arrival in arrivals]
    coming, out = iter(frames), []
    for cut in [*cuts, *[False] * len(frames), *[True] * len(frames)]:
        if cut:
            batch = waiting.cut()
            assert len(batch) <= max_batch
            assert len(batch) == 1 or sum(map(size_of, batch)) <= max_bytes or not batch
            assert [f.lane for f in batch] == sorted((f.lane for f in batch), reverse=True)
            out += batch
        elif (one := next(coming, None)) is not None:
            waiting.add(one)
    assert len(waiting) == 0
    for lane in Lane:
        assert waiting.waiting(lane) == (0, 0)
        assert [f for f in out if f.lane is lane] == [f for f in frames if f.lane is lane]


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as nothing else is to do."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            # A little later than asked for, as rounding could otherwise make time stand still.
            due = self._scheduled[0].when()  # type: ignore[attr-defined]
            self.now = max(self.now, due) + 1e-9
        super()._run_once()  # type: ignore[misc]


def in_virtual_time(scene: Callable[[VirtualTime], Coroutine[Any, Any, None]]) -> None:
    loop = VirtualTime()
    try:
        loop.run_until_complete(asyncio.wait_for(scene(loop), 10_000))
    finally:
        loop.close()


def batcher(loop: VirtualTime, **options: Any) -> MicroBatcher:
    limits = {
        name: options.pop(name)
        for name in ("max_batch", "max_batch_bytes", "max_wait", "work_conserving", "takers")
        if name in options
    }
    options = {"max_frames": 1000, "max_bytes": 10**9, "clock": loop.time, **options}
    return MicroBatcher(BatchLimits(**{"work_conserving": False, **limits}), size_of, **options)


def test_take_waits_until_the_oldest_frame_has_waited_its_time() -> None:
    async def scene(loop: VirtualTime) -> None:
        batches = batcher(loop, max_wait=1.0)
        taking = asyncio.create_task(batches.take())
        await asyncio.sleep(5.0)
        await batches.put(frame(loop.time()))
        await asyncio.sleep(0.7)
        await batches.put(frame(loop.time() - 0.2))
        assert len(await taking) == 2
        assert loop.time() == pytest.approx(6.0)

    in_virtual_time(scene)


def test_a_frame_that_comes_late_closes_the_batch_that_is_being_waited_for() -> None:
    async def scene(loop: VirtualTime) -> None:
        batches = batcher(loop, max_wait=1.0)
        taking = asyncio.create_task(batches.take())
        await asyncio.sleep(5.0)
        await batches.put(frame(5.0))
        await asyncio.sleep(0.2)
        await batches.put(frame(4.5))  # its fetch took 0.7 s
        await taking
        assert loop.time() == pytest.approx(5.5)

    in_virtual_time(scene)


def test_put_waits_for_room_in_its_lane_and_bulk_never_keeps_live_out() -> None:
    async def scene(loop: VirtualTime) -> None:
        batches = batcher(loop, max_frames=2, max_batch=2, max_wait=0)
        bulk = [asyncio.create_task(batches.put(frame(lane=Lane.BULK))) for _ in range(3)]
        await asyncio.sleep(1)
        assert [task.done() for task in bulk] == [True, True, False]
        await asyncio.wait_for(batches.put(frame()), 30)
        assert [f.lane for f in await batches.take()] == [Lane.LIVE, Lane.BULK]
        await asyncio.wait_for(bulk[2], 30)
        assert len(batches) == 2

    in_virtual_time(scene)


def test_put_waits_for_bytes_but_one_frame_is_always_admitted() -> None:
    async def scene(loop: VirtualTime) -> None:
        batches = batcher(loop, max_bytes=100, max_wait=0)
        await asyncio.wait_for(batches.put(frame(size=500)), 30)
        second = asyncio.create_task(batches.put(frame(size=1)))
        await asyncio.sleep(1)
        assert not second.done()
        await batches.take()
        await asyncio.wait_for(second, 30)

    in_virtual_time(scene)


def test_those_who_wait_for_room_enter_in_the_order_they_came() -> None:
    async def scene(loop: VirtualTime) -> None:
        batches = batcher(loop, max_frames=1, max_batch=1, max_wait=0)
        frames = [frame() for _ in range(6)]
        putting = [asyncio.create_task(batches.put(one)) for one in frames[:5]]
        await asyncio.sleep(0)
        out = await batches.take()
        # Comes while those who waited have not yet run.
        putting.append(asyncio.create_task(batches.put(frames[5])))
        await asyncio.sleep(0)
        for _ in range(5):
            out += await batches.take()
        await asyncio.gather(*putting)
        assert out == frames

    in_virtual_time(scene)


def test_a_put_that_is_cancelled_leaves_nothing_and_keeps_nobody_waiting() -> None:
    async def scene(loop: VirtualTime) -> None:
        batches = batcher(loop, max_frames=1, max_wait=0)
        first, second, third = frame(), frame(), frame()
        await batches.put(first)
        putting = [asyncio.create_task(batches.put(one)) for one in (second, third)]
        await asyncio.sleep(0)
        assert await batches.take() == [first]
        putting[0].cancel()
        await asyncio.wait(putting, timeout=1)
        assert putting[1].done()
        assert await batches.take() == [third]

    in_virtual_time(scene)


def test_a_lane_without_room_behind_stays_while_the_other_leaves() -> None:
    async def scene(loop: VirtualTime) -> None:
        room = {Lane.LIVE: True, Lane.BULK: False}
        batches = batcher(loop, max_batch=4, max_wait=0, admits=room.__getitem__)
        live, bulk = frame(), [frame(lane=Lane.BULK) for _ in range(5)]
        for one in [*bulk, live]:
            await batches.put(one)
        assert await batches.take() == [live]
        taking = asyncio.create_task(batches.take())
        await asyncio.sleep(1)
        assert not taking.done()
        room[Lane.BULK] = True
        batches.wake()
        assert await asyncio.wait_for(taking, 30) == bulk[:4]

    in_virtual_time(scene)


def test_close_hands_out_what_is_left_and_then_empty_batches() -> None:
    async def scene(loop: VirtualTime) -> None:
        batches = batcher(loop, max_wait=60.0, max_batch=2)
        frames = [frame(loop.time()) for _ in range(3)]
        for one in frames:
            await batches.put(one)
        assert await batches.take() == frames[:2]
        waiting = asyncio.create_task(batches.take())
        await asyncio.sleep(1)
        assert not waiting.done()
        batches.close()
        assert await waiting == frames[2:]
        assert await batches.take() == []
        assert loop.time() < 60.0

    in_virtual_time(scene)


def test_clear_drops_everything_and_makes_room() -> None:
    async def scene(loop: VirtualTime) -> None:
        batches = batcher(loop, max_frames=1, max_wait=60)
        first, second = frame(), frame()
        await batches.put(first)
        putting = asyncio.create_task(batches.put(second))
        await asyncio.sleep(0)
        assert list(batches.clear()) == [first]
        await asyncio.wait_for(putting, 30)
        assert len(batches) == 1

    in_virtual_time(scene)


@settings(max_examples=60, deadline=None)
@given(
    arrivals=st.lists(
        st.tuples(
            st.floats(0, 2),  # since the one before
            st.floats(0, 0.5),  # age on arrival: its fetch took that long
            st.integers(1, 50),
            st.sampled_from(Lane),
        ),
        min_size=1,
        max_size=30,
    ),
    max_batch=st.integers(1, 6),
    room=st.integers(1, 6),
    service=st.floats(0, 0.3),
    work_conserving=st.booleans(),
)
def test_no_frame_waits_past_its_cap_while_the_device_is_free(
    arrivals: list[tuple[float, float, int, Lane]],
    max_batch: int,
    room: int,
    service: float,
    work_conserving: bool,
) -> None:
    max_wait = 1.0
    frames: list[Frame] = []
    out: list[Frame] = []

    async def scene(loop: VirtualTime) -> None:
        batches = batcher(
            loop,
            max_batch=max_batch,
            max_batch_bytes=100,
            max_wait=max_wait,
            max_frames=room,
            work_conserving=work_conserving,
        )

        async def produce() -> None:
            async with asyncio.TaskGroup() as puts:
                for pause, age, size, lane in arrivals:
                    await asyncio.sleep(pause)
                    frames.append(frame(loop.time() - age, size, lane))
                    puts.create_task(batches.put(frames[-1]))
            batches.close()

        producing = asyncio.create_task(produce())
        while True:
            free_at = loop.time()
            batch = await batches.take()
            if not batch:
                break
            oldest = min(one.received_at for one in batch)
            arrived_late = max(age for _, age, _, _ in arrivals)
            assert loop.time() <= max(free_at, oldest + max(max_wait, arrived_late)) + 1e-6
            out.extend(batch)
            await asyncio.sleep(service)
        await producing

    in_virtual_time(scene)
    assert len(out) == len(set(out)) == len(frames)
    for lane in Lane:
        assert [f for f in out if f.lane is lane] == [f for f in frames if f.lane is lane]


def test_takers_share_what_would_not_fill_a_batch_for_each() -> None:
    waiting = queue(work_conserving=True, max_batch=16, takers=2)
    for _ in range(40):
        waiting.add(frame())
    sizes = []
    while batch := waiting.cut():
        sizes.append(len(batch))
    # Full while there is plenty; then half of what is left; at the end no less than quarters.
    assert sizes == [16, 12, 6, 4, 2]


def test_one_taker_alone_shares_with_nobody() -> None:
    waiting = queue(work_conserving=True, max_batch=16)
    for _ in range(20):
        waiting.add(frame())
    assert [len(waiting.cut()), len(waiting.cut())] == [16, 4]


def test_what_waits_is_told_in_seconds_of_work_for_all_takers() -> None:
    waiting = queue(lambda n: n / 10, max_batch=16, takers=2)
    assert waiting.ahead(Lane.LIVE) == 0
    for _ in range(16):
        waiting.add(frame())
    for _ in range(80):
        waiting.add(frame(lane=Lane.BULK))
    # Half of a full batch for each, which takes 1.6 s; bulk is counted by itself.
    assert waiting.ahead(Lane.LIVE) == pytest.approx(0.8)
    assert waiting.ahead(Lane.BULK) == pytest.approx(4.0)


def test_shares_follow_a_limit_that_memory_has_lowered() -> None:
    waiting = queue(work_conserving=True, max_batch=16, takers=2)
    waiting.limit_to(4)
    for _ in range(9):
        waiting.add(frame())
    # A quarter of what was configured: smaller batches would be dear while memory is short, too.
    assert [len(waiting.cut()) for _ in range(3)] == [4, 4, 1]


async def test_a_lower_limit_wakes_who_waits_for_a_full_batch() -> None:
    loop = asyncio.get_running_loop()
    limits = BatchLimits(max_batch=8, max_wait=600.0, work_conserving=False)
    batcher = MicroBatcher(limits, size_of, max_frames=9, max_bytes=99)
    taking = asyncio.create_task(batcher.take())
    for _ in range(5):
        await batcher.put(frame(loop.time()))
    await asyncio.sleep(0)
    assert not taking.done()
    batcher.limit_to(4)
    assert len(await asyncio.wait_for(taking, 30)) == 4


async def test_who_waits_when_everything_is_dropped_at_the_end_learns_of_it() -> None:
    batcher = MicroBatcher(
        BatchLimits(), size_of, max_frames=9, max_bytes=99, admits=lambda _: False
    )
    await batcher.put(frame())
    batcher.close()
    takers = [asyncio.create_task(batcher.take()) for _ in range(2)]
    await asyncio.sleep(0)
    assert len(batcher.clear()) == 1
    assert await asyncio.wait_for(asyncio.gather(*takers), 30) == [[], []]


@given(
    live=st.integers(0, 40),
    bulk=st.integers(0, 40),
    takers=st.integers(1, 4),
    max_batch=st.integers(1, 16),
)
def test_shared_batches_hold_every_frame_once_in_the_order_of_its_lane(
    live: int, bulk: int, takers: int, max_batch: int
) -> None:
    waiting = queue(work_conserving=True, max_batch=max_batch, takers=takers)
    frames = [frame() for _ in range(live)] + [frame(lane=Lane.BULK) for _ in range(bulk)]
    for one in reversed(frames):
        waiting.add(one)
    out = []
    while batch := waiting.cut():
        assert len(batch) <= max_batch
        out += batch
    assert len(out) == live + bulk
    assert [one for one in out if one.lane is Lane.LIVE] == frames[:live][::-1]
    assert [one for one in out if one.lane is Lane.BULK] == frames[live:][::-1]
