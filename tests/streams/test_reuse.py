"""Promises of reuse: the same bytes are analysed once, and nobody loses or borrows an identity."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from faulty_parts import FakeChain, FakeDecoder, FakeFetcher, RecordingSink, frame, until
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.findings import Detection, Embedding, Verdict
from operators.frame import Frame, Lane
from streams.metrics import Metrics
from streams.pipeline import Pipeline
from streams.reuse import Reuse
from streams.settings import BatchSettings, StreamSettings


class ContentChain(FakeChain):
    """Sees the content's id; fails those in `poison`."""

    def __init__(self) -> None:
        super().__init__()
        self.poison: set[str] = set()
        self.analysed: list[str] = []

    def analyse(self, frames: Sequence[Frame]) -> None:
        super().analyse(frames)
        for one in frames:
            self.analysed.append(one.image_id)
            assert one.findings.fingerprint is not None
            if one.image_id in self.poison:
                one.fail("objects", "operator-error", "it fails")
            one.findings.objects = [Detection(one.findings.fingerprint.content_id[:8], 0.5, BOX)]

    def decide(self, frames: Sequence[Frame]) -> None:
        for one in frames:
            if not one.failed:
                one.findings.verdict = Verdict("allow", f"for {one.feed}/{one.image_id}")


BOX = (0.0, 0.0, 1.0, 1.0)


class Scene:
    def __init__(self, reuse: Reuse | None, **batch: Any) -> None:
        self.sink, self.chain, self.decoder = RecordingSink(), ContentChain(), FakeDecoder()
        self.metrics = Metrics()
        self.fetcher = FakeFetcher()
        self.acknowledged: list[int] = []
        self.pipeline = Pipeline(
            fetcher=self.fetcher,
            decoder=self.decoder,
            chain=self.chain,
            sinks=[self.sink],
            metrics=self.metrics,
            stream=StreamSettings(),
            batch=BatchSettings(**batch),
            reuse=reuse,
        )

    async def submit(self, *frames: Frame) -> None:
        for one in frames:
            offset = one.origin.offset
            await self.pipeline.submit(one, lambda offset=offset: self.acknowledged.append(offset))

    def reused(self, kind: str) -> float:
        name, labels = "imagewire_frames_reused_total", {"kind": kind}
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def at_work(reuse: Reuse | None = None, **batch: Any) -> AsyncIterator[Scene]:
    scene = Scene(reuse or Reuse(100, 10_000_000), **batch)
    running = asyncio.create_task(scene.pipeline.run())
    try:
        yield scene
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_the_same_bytes_are_analysed_once_and_each_image_keeps_its_own_identity() -> None:
    async with at_work() as scene:
        first = frame("first", offset=0, value=b"photo")
        await scene.submit(first)
        await until(lambda: scene.sink.findings == ["first"])
        again, other = frame("again", offset=1, value=b"photo"), frame("other", offset=2)
        again.feed = "elsewhere"
        await scene.submit(again, other)
        assert await scene.pipeline.drain(60) == 0
        assert scene.chain.analysed == ["first", "other"]
        assert [name for batch in scene.decoder.batches for name in batch] == ["first", "other"]
        assert sorted(scene.sink.findings) == ["again", "first", "other"]
        assert again.findings.objects == first.findings.objects
        assert again.findings.fingerprint == first.findings.fingerprint
        assert again.findings.extra == {"reused": {"image_id": "first"}}
        assert first.findings.extra == {}
        assert again.findings.verdict == Verdict("allow", "for elsewhere/again")
        assert scene.acknowledged == [0, 1, 2]
        assert scene.reused("cached") == 1
        value = scene.metrics.registry.get_sample_value("imagewire_reuse_lookups_total")
        assert value == 3


async def test_twins_in_one_batch_and_one_that_comes_later_wait_for_the_first() -> None:
    async with at_work(max_batch=4) as scene:
        await scene.submit(*(frame(f"twin-{n}", offset=n, value=b"photo") for n in range(10)))
        assert await scene.pipeline.drain(60) == 0
        assert scene.chain.analysed == ["twin-0"]
        assert sorted(scene.sink.findings) == [f"twin-{n}" for n in range(10)]
        assert scene.reused("in-flight") + scene.reused("cached") == 9


async def test_when_the_first_fails_each_twin_is_tried_by_itself_and_once() -> None:
    async with at_work(max_batch=16) as scene:
        scene.chain.poison.add("twin-0")
        await scene.submit(*(frame(f"twin-{n}", offset=n, value=b"photo") for n in range(6)))
        assert await scene.pipeline.drain(60) == 0
        assert scene.sink.failures == ["twin-0"]
        assert sorted(scene.sink.findings) == [f"twin-{n}" for n in range(1, 6)]
        assert sorted(scene.chain.analysed) == [f"twin-{n}" for n in range(6)]
        assert scene.acknowledged == list(range(6))


async def test_bytes_that_cannot_be_decoded_fail_every_image_that_has_them() -> None:
    async with at_work() as scene:
        await scene.submit(*(frame(str(n), offset=n, value=b"undecodable") for n in range(8)))
        assert await scene.pipeline.drain(60) == 0
        assert sorted(scene.sink.failures) == [str(n) for n in range(8)]
        assert sum(map(len, scene.decoder.batches)) == 8


async def test_twins_of_a_frame_that_is_let_go_go_on() -> None:
    async with at_work(max_batch=1) as scene:
        stuck = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wait(frames: Sequence[Frame]) -> None:
            if frames[0].image_id == "blocker":
                asyncio.run_coroutine_threadsafe(stuck.wait(), loop).result()

        scene.chain.before = wait
        blocker = frame("blocker", partition=0, offset=0, value=b"blocker")
        leader = frame("leader", partition=0, offset=1, value=b"photo")
        await scene.submit(blocker, leader)
        await until(lambda: scene.decoder.batches[-1:] == [["leader"]])
        scene.pipeline.ledger.revoke()
        twin = frame("twin", partition=1, offset=7, value=b"photo")
        await scene.submit(twin)
        await asyncio.sleep(0.05)
        stuck.set()
        await until(lambda: "twin" in scene.sink.findings)
        assert "leader" not in scene.sink.findings
        assert scene.chain.analysed == ["blocker", "twin"]


async def test_a_live_frame_never_waits_for_its_twin_in_bulk() -> None:
    reuse = Reuse(10, 1_000_000)
    bulk, live = frame("bulk", lane=Lane.BULK, value=b"x"), frame("live", value=b"x")
    assert reuse.sort([bulk])["new"] == [bulk]
    assert reuse.sort([live])["new"] == [live]
    late = frame("late", lane=Lane.BULK, value=b"x")
    assert reuse.sort([late])["in-flight"] == [late]
    assert reuse.finish(live) == []
    assert reuse.finish(bulk) == [late]


def test_those_who_wait_share_one_copy_of_the_bytes() -> None:
    reuse = Reuse(10, 1_000_000)
    frames = [frame(str(n), value=bytes([7]) * 1000) for n in range(4)]
    for one in frames:
        one.content = bytes(bytearray(one.content or b""))  # each has a copy of its own
    reuse.sort(frames)
    assert frames[1].content is frames[2].content is frames[3].content


def test_findings_of_a_frame_that_only_looked_the_same_are_not_kept() -> None:
    reuse = Reuse(10, 1_000_000)
    near = frame("near", value=b"x")
    reuse.sort([near])
    near.findings.extra["reused"] = {"image_id": "other", "operators": [], "pdq_distance": 4}
    reuse.finish(near)
    assert reuse.size == (0, 0)


def test_an_embedding_comes_back_to_the_last_bit_and_takes_less_than_a_list_does() -> None:
    reuse = Reuse(10, 1_000_000)
    embedding = Embedding("m@1", [number / 3 for number in range(1280)])
    first, again = frame("first", value=b"photo"), frame("again", value=b"photo")
    reuse.sort([first])
    first.findings.embedding = embedding
    reuse.finish(first)
    assert reuse.sort([again])["cached"] == [again]
    assert again.findings.embedding == embedding
    assert first.findings.embedding is embedding
    as_a_list = sys.getsizeof(embedding.vector) + sum(map(sys.getsizeof, embedding.vector))
    assert reuse.size[1] - 2_000 <= as_a_list / 3


def test_what_was_used_last_stays_when_there_are_too_many() -> None:
    reuse = Reuse(2, 1_000_000)
    for name in ("a", "b"):
        one = frame(name, value=name.encode())
        reuse.sort([one])
        reuse.finish(one)
    assert reuse.sort([frame(value=b"a")])["cached"]
    third = frame("c", value=b"c")
    reuse.sort([third])
    reuse.finish(third)
    assert reuse.sort([frame(value=b"a")])["cached"]
    assert not reuse.sort([frame(value=b"b")])["cached"]


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2000)), max_size=60))
def test_the_bounds_hold_whatever_comes(contents: list[tuple[int, int]]) -> None:
    reuse = Reuse(4, 40_000)
    for name, dimension in contents:
        one = frame(value=bytes([name]))
        sorted_frames = reuse.sort([one])
        if sorted_frames["new"]:
            one.findings.embedding = Embedding("m@1", [0.5] * dimension)
            reuse.finish(one)
        count, size = reuse.size
        assert count <= 4
        assert size <= 40_000
        assert (size == 0) == (count == 0)


@settings(max_examples=40, deadline=None)
@given(
    arrivals=st.lists(
        st.tuples(
            st.sampled_from([b"a", b"b", b"c", b"undecodable", b"crash-decoder"]),
            st.sampled_from(Lane),
            st.booleans(),  # whether the operators fail it
            st.integers(0, 1),  # partition
        ),
        max_size=40,
    ),
    max_batch=st.integers(1, 6),
    kept=st.integers(1, 3),
)
def test_every_image_ends_once_whatever_repeats_and_whatever_fails(
    arrivals: list[tuple[bytes, Lane, bool, int]], max_batch: int, kept: int
) -> None:
    async def scene() -> None:
        async with at_work(Reuse(kept, 1_000_000), max_batch=max_batch) as scene:
            frames = [
                frame(str(n), offset=n, value=value, lane=lane, partition=partition)
                for n, (value, lane, _, partition) in enumerate(arrivals)
            ]
            scene.chain.poison = {str(n) for n, (_, _, bad, _) in enumerate(arrivals) if bad}
            await scene.submit(*frames)
            assert await scene.pipeline.drain(60) == 0
            assert sorted(scene.sink.findings + scene.sink.failures) == sorted(
                one.image_id for one in frames
            )
            assert sorted(scene.acknowledged) == list(range(len(frames)))
            for one in frames:
                value = one.origin.value
                assert one.failed or value in (b"a", b"b", b"c")
                assert not one.failed or one.image_id in scene.chain.poison or value not in b"abc"
                if not one.failed:
                    assert one.findings.verdict == Verdict("allow", f"for test/{one.image_id}")
                    twins = [other for other in frames if other.origin.value == value]
                    source = one.findings.extra.get("reused", {}).get("image_id", one.image_id)
                    assert source in {other.image_id for other in twins}
            assert max(map(len, scene.chain.batches), default=0) <= max_batch

    asyncio.run(scene())


@pytest.fixture(autouse=True)
def _no_backoff(no_backoff: Iterator[None]) -> None:
    """Sinks answer at once."""
