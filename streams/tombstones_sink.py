"""Keeps what was erased from being written again, at the last moment before every write.

A tombstone may come while a frame is fetched, analysed or waits for a store that is away. So every
attempt to write looks once more; and a tombstone that comes during the write itself has the store
erase what was written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from operators.frame import Frame
from sinks.sink import Sink
from streams.tombstones import Tombstones


@runtime_checkable
class ErasesFrames(Protocol):
    """A sink that can take back what it wrote."""

    async def erase(self, frames: Sequence[Frame]) -> None: ...


class WithoutForgotten(Sink):
    """A sink that passes over frames that were erased; they count as written.

    Args:
        on_dropped: told which frames were dropped.
    """

    def __init__(
        self,
        sink: Sink,
        tombstones: Tombstones,
        on_dropped: Callable[[Sequence[Frame]], object] = lambda frames: None,
    ) -> None:
        self.name = sink.name  # type: ignore[misc] # a class's for every other sink
        self._sink = sink
        self._tombstones = tombstones
        self._on_dropped = on_dropped

    async def open(self) -> None:
        await self._sink.open()

    async def write(self, frames: Sequence[Frame]) -> None:
        tombstones = self._tombstones
        kept = frames
        if tombstones.changes:
            kept = [frame for frame in frames if not tombstones.covers_frame(frame)]
        before = tombstones.changes
        if kept:
            await self._sink.write(kept)
        late: list[Frame] = []
        if tombstones.changes != before and isinstance(self._sink, ErasesFrames):
            late = [frame for frame in kept if tombstones.covers_frame(frame)]
            if late:
                await self._sink.erase(late)
        if len(kept) != len(frames) or late:
            written = set(kept).difference(late)
            self._on_dropped([frame for frame in frames if frame not in written])

    async def close(self) -> None:
        await self._sink.close()
