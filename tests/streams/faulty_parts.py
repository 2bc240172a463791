"""Small parts for the pipeline whose faults a test decides: sink, fetcher, decoder, chain."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence

import torch

from operators.findings import Findings, Verdict
from operators.frame import Frame, Lane, Origin
from sinks.sink import Sink
from streams.fetched import FetchError

_offsets = itertools.count()


def frame(
    image_id: str = "",
    *,
    partition: int = 0,
    offset: int | None = None,
    lane: Lane = Lane.LIVE,
    uri: str | None = None,
    value: bytes = b"x",
) -> Frame:
    origin = Origin(
        "images", partition, next(_offsets) if offset is None else offset, 0, b"", value
    )
    return Frame(
        image_id=image_id or origin.derived_id(),
        feed="test",
        event_time_ms=0,
        origin=origin,
        lane=lane,
        uri=uri,
        content=value if uri is None else None,
    )


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - any condition, not one that sets an event
            await asyncio.sleep(0.002)


class RecordingSink(Sink):
    """Keeps what was written. `before` may wait or raise for a block before it is kept."""

    def __init__(self, name: str = "kafka") -> None:
        self.name = name  # type: ignore[misc]
        self.blocks: list[list[Frame]] = []
        self.findings: list[str] = []
        self.failures: list[str] = []
        self.attempts = 0
        self.open_gate = asyncio.Event()
        self.open_gate.set()
        self.before: Callable[[Sequence[Frame]], Awaitable[None]] | None = None

    async def open(self) -> None: ...

    async def write(self, frames: Sequence[Frame]) -> None:
        self.attempts += 1
        await self.open_gate.wait()
        if self.before is not None:
            await self.before(frames)
        self.blocks.append(list(frames))
        for one in frames:
            (self.failures if one.failed else self.findings).append(one.image_id)

    async def close(self) -> None: ...

    def stall(self) -> None:
        """Let no write end until `resume`."""
        self.open_gate.clear()

    def resume(self) -> None:
        self.open_gate.set()


class FakeFetcher:
    """Answers `ok:` at once, fails for `bad:`, breaks for `defect:`, waits for `slow:`."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.under_way = 0
        self.most_under_way = 0

    async def fetch(self, uri: str) -> bytes:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if uri.startswith("slow:"):
                await self.release.wait()
            if uri.startswith("bad:"):
                raise FetchError("not-found", "it is not there")
            if uri.startswith("defect:"):
                raise KeyError("a defect")
            await asyncio.sleep(0)
            return uri.encode()
        finally:
            self.under_way -= 1


class FakeDecoder:
    """Fails frames that hold `undecodable`; raises for batches that hold `crash-decoder`."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.before: Callable[[], None] | None = None

    def decode_parts(self, frames: Sequence[Frame]) -> Iterator[list[Frame]]:
        self.batches.append([one.image_id for one in frames])
        if self.before is not None:
            self.before()
        for one in frames:
            content = one.content or b""
            if b"crash-decoder" in content:
                raise RuntimeError("the decoder has a defect")
            if b"undecodable" in content:
                one.fail("decode", "not-an-image", "no image")
            elif b"no-pixels" not in content:
                one.pixels = torch.zeros((2, 2, 3), dtype=torch.uint8)
        yield list(frames)


class FakeChain:
    """Allows everything. `before` runs for each batch on the device's thread."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.before: Callable[[Sequence[Frame]], None] | None = None
        self.before_decision: Callable[[Sequence[Frame]], None] | None = None
        self.threads: set[int] = set()

    def analyse(self, frames: Sequence[Frame]) -> None:
        self.threads.add(threading.get_ident())
        self.batches.append([one.image_id for one in frames])
        assert all(one.pixels is not None and not one.failed for one in frames)
        if self.before is not None:
            self.before(frames)
        for one in frames:
            one.findings = Findings(fingerprint=one.findings.fingerprint)
            one.pixels = None

    def decide(self, frames: Sequence[Frame]) -> None:
        if self.before_decision is not None:
            self.before_decision(frames)
        for one in frames:
            if not one.failed:
                one.findings.verdict = Verdict("allow", "test")
