"""How much may be under way at once: the budget that pauses intake before memory fills."""

from __future__ import annotations

import asyncio

from operators.frame import Frame


class InFlightBudget:
    """Admits records while fewer than `max_frames` and less than `max_bytes` are under way.

    One record is always admitted, however large, so that none can block its partition for good.
    """

    def __init__(self, max_frames: int, max_bytes: int) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._frames = 0
        self._bytes = 0
        self._freed = asyncio.Event()

    def admits(self, size: int) -> bool:
        """Whether a record of `size` bytes may start now."""
        return not self._frames or (
            self._frames < self._max_frames and self._bytes + size <= self._max_bytes
        )

    async def acquire(self, size: int) -> None:
        """Wait until a record of `size` bytes may start."""
        while not self.admits(size):
            self._freed.clear()
            await self._freed.wait()
        self._frames += 1
        self._bytes += size

    def release(self, size: int) -> None:
        """A record of `size` bytes is done."""
        self._frames -= 1
        self._bytes -= size
        self._freed.set()

    @property
    def frames(self) -> int:
        """Records under way."""
        return self._frames


def record_size(frame: Frame) -> int:
    """Bytes of the Kafka record that a frame came from, which it holds until it is safe."""
    origin = frame.origin
    size = len(origin.value or b"") + len(origin.key or b"")
    for name, value in origin.headers:
        size += len(name) + len(value or b"")
    return size
