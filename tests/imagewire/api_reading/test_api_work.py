"""Promises of heavy work: one at a time, a full queue says so, comparisons are bounded."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from imagewire.api.duplicates import grouped
from imagewire.api.kept_bytes import KeptBytes
from imagewire.api.work_thread import BusyError, WorkThread
from sinks.qdrant.reader import Placed


async def test_who_comes_to_a_full_queue_is_told_when_to_come_again() -> None:
    thread = WorkThread("tests", 2)
    gate = threading.Event()
    running: list[int] = []

    def work(number: int) -> int:
        gate.wait(30)
        running.append(number)
        return number

    first, second = (asyncio.ensure_future(thread.run(lambda n=n: work(n))) for n in (1, 2))
    await asyncio.sleep(0)
    with pytest.raises(BusyError) as refused:
        await thread.run(lambda: work(3))
    assert refused.value.retry_after >= 1
    gate.set()
    assert await asyncio.gather(first, second) == [1, 2]
    assert await thread.run(lambda: work(4)) == 4
    assert running == [1, 2, 4]
    thread.close()


async def test_what_nobody_waits_for_any_more_is_not_begun() -> None:
    thread = WorkThread("tests", 4)
    gate = threading.Event()
    begun: list[int] = []
    first = asyncio.ensure_future(thread.run(lambda: gate.wait(30)))
    second = asyncio.ensure_future(thread.run(lambda: begun.append(2)))
    await asyncio.sleep(0.05)
    second.cancel()
    await asyncio.sleep(0)
    gate.set()
    await first
    await thread.run(lambda: begun.append(3))
    assert begun == [3]
    assert thread.waiting <= 1
    thread.close()


def placed(name: str, *vector: float) -> Placed:
    return Placed(
        name, "feed", name, f"2026-01-01T00:00:0{name}.000Z", np.array(vector, np.float32)
    )


def test_likeness_is_not_passed_on_from_image_to_image() -> None:
    # Each is near the next, the first is far from the last: a slow pan.
    turns = [np.deg2rad(30 * step) for step in range(4)]
    pan = [placed(str(step), np.cos(turn), np.sin(turn)) for step, turn in enumerate(turns)]
    groups = grouped(pan, 0.8)
    assert [[each.image_id for each in group.images] for group in groups] == [
        ["0", "1"],
        ["2", "3"],
    ]
    assert groups[0].similarity == pytest.approx(np.cos(np.deg2rad(30)), abs=1e-5)
    assert grouped(pan[:1], 0.5) == []


def test_groups_are_the_same_across_blocks() -> None:
    random = np.random.default_rng(7)
    centres = random.normal(size=(40, 64))
    images = [
        Placed(
            f"{n:04d}",
            "f",
            "",
            f"{n:06d}",
            (centres[n % 40] + 0.01 * random.normal(size=64)).astype(np.float32),
        )
        for n in range(700)
    ]
    groups = grouped(images, 0.95)
    assert len(groups) == 40
    assert sum(len(group.images) for group in groups) == 700
    assert groups[0].images[0].image_id == "0000"


def test_kept_bytes_stay_below_their_limit() -> None:
    kept = KeptBytes(100)
    for name in "abcdef":
        kept.put(name, bytes(25))
    assert kept.get("a") is None
    assert kept.get("f") == bytes(25)
    kept.put("huge", bytes(90))
    assert kept.get("huge") is None
    assert kept.get("f") is not None
