"""Writes frames to one sink, in blocks, until they are safe.

While a write is under way the next block gathers, so a slow store gets larger blocks instead of
more of them. Transient errors are retried for as long as it takes; the queue in front is bounded,
so a store that is down pauses intake rather than filling memory. A permanent error is narrowed down
by halving the block until the rows that cause it stand alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import stamina

from operators.frame import Frame
from sinks.sink import AccessSinkError, PermanentSinkError, Sink, TransientSinkError
from streams.metrics import Metrics

logger = logging.getLogger(__name__)

_PACE_SECONDS = 0.01
"""From the beginning of one write to that of the next, if frames are few. The first after a pause
leaves at once; but device batches that come thick and fast would each cost the price of a write."""

_SETTLED_AT_ONCE = 100
"""Frames of a block that are acknowledged before others on the event loop have their turn: some 10
µs of work each."""


@dataclass(frozen=True, slots=True)
class SinkTrouble:
    """Why a sink is not keeping up: the last error and since when it lasts (`time.time()`)."""

    error: str
    since: float


class SinkWriter:
    """The queue and the writing task of one sink."""

    def __init__(
        self,
        sink: Sink,
        metrics: Metrics,
        *,
        linger: float,
        block_rows: int,
        enough_rows: int,
        on_written: Callable[[Sink, Sequence[Frame]], None],
        on_rejected: Callable[[Sink, Frame, Exception, bool], None],
    ) -> None:
        """
        Args:
            linger: seconds for which a block may gather, from its first frame, before it is
                written.
            block_rows: most frames in one write.
            enough_rows: so many frames are written without gathering more. Fewer than may be in
                flight, or the intake would pause until the linger is over.
            on_written: called with frames that are safe in this sink.
            on_rejected: called instead for each frame that the sink refuses for good, with the
                error and with whether the frame had failed already when it was written (so that
                it was a dead letter that was refused, not findings).
        """
        self.sink = sink
        self.trouble: SinkTrouble | None = None
        self._metrics = metrics
        self._linger = linger
        self._block_rows = block_rows
        self._enough_rows = enough_rows
        self._on_written = on_written
        self._on_rejected = on_rejected
        self._waiting: deque[Frame] = deque()
        self._gathering_since = 0.0
        self._begun = 0.0
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._hurry = asyncio.Event()

    def add(self, frames: Sequence[Frame]) -> None:
        """Queue frames, one or more. Their number is bounded before they come here."""
        if not self._waiting:
            self._gathering_since = time.monotonic()
        self._waiting.extend(frames)
        self._metrics.queue_depth.labels(self.sink.name).set(len(self._waiting))
        self._arrived.set()
        if len(self._waiting) >= self._enough_rows:
            self._full.set()

    def hurry(self) -> None:
        """Stop lingering: frames are being drained."""
        self._hurry.set()
        self._full.set()

    def linger(self) -> None:
        """Let blocks gather again."""
        self._hurry.clear()
        if len(self._waiting) < self._enough_rows:
            self._full.clear()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._arrived.wait()
            if not self._hurry.is_set():
                await self._gather()
            block = [
                self._waiting.popleft() for _ in range(min(len(self._waiting), self._block_rows))
            ]
            self._gathering_since = self._begun = time.monotonic()
            if not self._waiting:
                self._arrived.clear()
            if len(self._waiting) < self._enough_rows and not self._hurry.is_set():
                self._full.clear()
            self._metrics.queue_depth.labels(self.sink.name).set(len(self._waiting))
            await self._write(block)

    async def _gather(self) -> None:
        # Frames that came while the last block was written have gathered long enough.
        until = max(self._gathering_since + self._linger, self._begun + _PACE_SECONDS)
        rest = until - time.monotonic()
        if rest <= 0:
            return
        try:
            async with asyncio.timeout(rest):
                await self._full.wait()
        except TimeoutError:
            return

    async def _write(self, frames: Sequence[Frame]) -> None:
        # Another sink may make the frame fail while this one writes it.
        dead_letter = frames[0].failed
        try:
            started = time.perf_counter()
            await self._write_until_safe(frames)
        except PermanentSinkError as error:
            await self._isolate(frames, error, dead_letter)
            return
        except Exception as error:
            # A sink that raises anything else has a defect, and retrying would hide it; treat
            # the rows as rejected so that they are dead-lettered with the error's name.
            logger.exception("sink %s failed unexpectedly", self.sink.name)
            await self._isolate(frames, error, dead_letter)
            return
        self._metrics.stage_seconds.labels(f"sink-{self.sink.name}").observe(
            time.perf_counter() - started
        )
        for start in range(0, len(frames), _SETTLED_AT_ONCE):
            self._on_written(self.sink, frames[start : start + _SETTLED_AT_ONCE])
            await asyncio.sleep(0)

    async def _isolate(self, frames: Sequence[Frame], error: Exception, dead_letter: bool) -> None:
        if len(frames) == 1:
            logger.error("sink %s rejects image %r: %s", self.sink.name, frames[0].image_id, error)
            self._metrics.sink_rejections.labels(self.sink.name).inc()
            self._on_rejected(self.sink, frames[0], error, dead_letter)
            return
        middle = len(frames) // 2
        await self._write(frames[:middle])
        await self._write(frames[middle:])

    async def _write_until_safe(self, frames: Sequence[Frame]) -> None:
        failed: Exception | None = None
        try:
            # By itself, since stamina takes a fifth of a millisecond before the first attempt.
            await self.sink.write(frames)
        except (TransientSinkError, AccessSinkError) as error:
            failed = error
        if failed is not None:
            await self._retry_until_safe(frames, failed)
        if self.trouble is not None:
            logger.warning(
                "sink %s works again after %.0f s", self.sink.name, time.time() - self.trouble.since
            )
            self.trouble = None

    async def _retry_until_safe(self, frames: Sequence[Frame], failed: Exception | None) -> None:
        # Unbounded on purpose: nothing is acknowledged until it is safe, and the queues before
        # this one are bounded. Waits grow to 15 s so that a store that returns is not stormed.
        async for attempt in stamina.retry_context(
            on=self._backoff, attempts=None, timeout=None, wait_initial=0.1, wait_max=15.0
        ):
            with attempt:
                if failed is not None:
                    first, failed = failed, None
                    raise first
                await self.sink.write(frames)

    def _backoff(self, error: Exception) -> bool | float:
        """Whether to retry, or after how many seconds when the store said so."""
        if not isinstance(error, TransientSinkError | AccessSinkError):
            return False
        self._metrics.sink_retries.labels(self.sink.name).inc()
        if self.trouble is None:
            logger.warning("sink %s cannot write now, retrying: %s", self.sink.name, error)
        since = self.trouble.since if self.trouble else time.time()
        self.trouble = SinkTrouble(str(error), since)
        if isinstance(error, AccessSinkError) or error.retry_after is None:
            return True
        return min(error.retry_after, 60.0)
