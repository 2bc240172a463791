"""The cheapest answer comes first, and what it spared is counted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

from faulty_parts import FakeChain, FakeDecoder, FakeFetcher, RecordingSink, frame, until

from operators.findings import Verdict
from operators.frame import Frame
from operators.known_images import KNOWN
from streams.cost_ladder import CostLadder
from streams.metrics import Metrics
from streams.pipeline import Pipeline
from streams.reuse import Reuse
from streams.settings import BatchSettings, StreamSettings


class Recogniser:
    """Knows contents that begin with `banned`."""

    def __init__(self) -> None:
        self.on_settled: Callable[[list[Frame]], None] | None = None
        self.looked_again: list[str] = []

    def recognise(self, frames: Sequence[Frame]) -> list[Frame]:
        settled = [one for one in frames if (one.content or b"").startswith(b"banned")]
        for one in settled:
            one.findings.extra[KNOWN] = {"skipped": ["objects"]}
        return settled

    def recognise_again(self, frames: Sequence[Frame]) -> None:
        self.looked_again += [one.image_id for one in frames]


def test_banned_then_known_then_new() -> None:
    recogniser, reuse, metrics = Recogniser(), Reuse(10, 1 << 20), Metrics()
    metrics.operators = ("objects", "text")
    ladder = CostLadder(recogniser, reuse, metrics)
    first = frame("first", offset=0, value=b"photo")
    assert ladder.climb([first]) == ([], [first])
    reuse.finish(first)
    again = frame("again", offset=1, value=b"photo")
    banned = frame("banned", offset=2, value=b"banned")
    new = frame("new", offset=3, value=b"another")
    settled, left = ladder.climb([again, banned, new])
    assert [one.image_id for one in settled] == ["banned", "again"]
    assert left == [new]
    assert recogniser.looked_again == ["again"], "lists may have changed since"
    for operator in ("objects", "text"):
        value = metrics.registry.get_sample_value(
            "imagewire_model_runs_saved_total", {"operator": operator, "rung": "cache"}
        )
        assert value == 1


def test_findings_of_a_banned_image_are_not_kept_for_others() -> None:
    reuse = Reuse(10, 1 << 20)
    ladder = CostLadder(None, reuse, Metrics())
    first = frame("first", offset=0, value=b"photo")
    ladder.climb([first])
    first.findings.extra[KNOWN] = {"skipped": ["objects"]}
    reuse.finish(first)
    again = frame("again", offset=1, value=b"photo")
    assert ladder.climb([again]) == ([], [again])


def test_feeds_share_no_findings_where_what_is_looked_for_depends_on_the_feed() -> None:
    reuse = Reuse(10, 1 << 20, by_feed=True)
    first = frame("first", offset=0, value=b"photo")
    reuse.sort([first])
    reuse.finish(first)
    same, other = (frame(name, offset=1, value=b"photo") for name in ("same", "other"))
    other.feed = "another"
    found = reuse.sort([same, other])
    assert (found["cached"], found["new"]) == ([same], [other])


class SettlingChain(FakeChain):
    """Settles the frame `banned` and then holds the batch until it is told to go on."""

    def __init__(self, recogniser: Recogniser) -> None:
        super().__init__()
        self.recogniser = recogniser
        self.go_on = threading.Event()

    def analyse(self, frames: Sequence[Frame]) -> None:
        settled = [one for one in frames if one.image_id == "banned"]
        for one in settled:
            one.pixels = None
            one.findings.extra[KNOWN] = {"skipped": ["objects"]}
        assert self.recogniser.on_settled is not None
        self.recogniser.on_settled(settled)
        self.go_on.wait(60)
        super().analyse([one for one in frames if one not in settled])

    def decide(self, frames: Sequence[Frame]) -> None:
        for one in frames:
            action = "block" if KNOWN in one.findings.extra else "allow"
            one.findings.verdict = Verdict(action, "test")


async def test_a_settled_verdict_does_not_wait_for_its_batch() -> None:
    recogniser = Recogniser()
    chain, kafka = SettlingChain(recogniser), RecordingSink("kafka")
    acknowledged: list[int] = []
    pipeline = Pipeline(
        fetcher=FakeFetcher(),
        decoder=FakeDecoder(),
        chain=chain,
        sinks=[kafka],
        metrics=Metrics(),
        stream=StreamSettings(),
        batch=BatchSettings(),
        known=recogniser,
    )
    running = asyncio.create_task(pipeline.run())
    try:
        frames = [frame(name, offset=n) for n, name in enumerate(("slow", "banned", "other"))]
        for one in frames:
            await pipeline.submit(one, lambda one=one: acknowledged.append(one.origin.offset))
        await until(lambda: "banned" in kafka.findings)
        assert kafka.findings == ["banned"]
        assert acknowledged == [], "offsets are acknowledged in their order"
        chain.go_on.set()
        assert await pipeline.drain(60) == 0
        assert sorted(kafka.findings) == ["banned", "other", "slow"]
        assert acknowledged == [0, 1, 2]
    finally:
        chain.go_on.set()
        running.cancel()
        await asyncio.wait([running])
