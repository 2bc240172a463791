"""Delivers finished frames to every sink, and says when a frame is safe in all of them.

Sinks are written side by side, so that the verdicts on Kafka never wait for a slower store. A
frame that one sink refuses for good becomes a dead letter: it is marked as failed and written once
more to the sinks that keep dead letters, so that nothing disappears with a row that cannot be
stored. One of them is enough for a dead letter; where none takes it, the worker must end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from operators.frame import Frame, Stage
from sinks.sink import Sink
from streams.metrics import Metrics
from streams.sink_writer import SinkTrouble, SinkWriter
from streams.together import run_together

logger = logging.getLogger(__name__)


class DeadLetterError(Exception):
    """A dead letter can be written to no sink that keeps them: going on would lose a frame."""


class Delivery:
    """Writes frames to `sinks` and calls `on_safe` once each is safe in all of them."""

    def __init__(
        self,
        sinks: Sequence[Sink],
        metrics: Metrics,
        *,
        on_safe: Callable[[Frame], None],
        on_written: Callable[[Sequence[Frame], Sink], None] = lambda frames, sink: None,
        linger: Mapping[str, float] | None = None,
        block_rows: int = 1000,
        enough_rows: int | None = None,
        dead_letter_sinks: Sequence[str] = ("kafka", "clickhouse"),
    ) -> None:
        """
        Args:
            on_written: called with frames and their sink as soon as that sink has them.
            linger: seconds for which blocks gather, by sink name; 0 for those not named.
            enough_rows: frames that end a block's gathering; `block_rows` by default.
            dead_letter_sinks: names of the sinks that keep failed frames.
        """
        if not sinks:
            raise ValueError("there is no sink; findings would go nowhere")
        self._on_safe = on_safe
        self._on_written = on_written
        self._dead_letter_sinks = dead_letter_sinks
        self._outstanding: dict[Frame, int] = {}
        self._refused_by: dict[Frame, set[str]] = {}
        self._fatal: asyncio.Future[None] | None = None
        self._writers = {
            sink.name: SinkWriter(
                sink,
                metrics,
                linger=(linger or {}).get(sink.name, 0.0),
                block_rows=block_rows,
                enough_rows=min(enough_rows or block_rows, block_rows),
                on_written=self._written,
                on_rejected=self._rejected,
            )
            for sink in sinks
        }

    def deliver(self, frames: Sequence[Frame]) -> None:
        """Queue frames for every sink."""
        if not frames:
            return
        for frame in frames:
            self._outstanding[frame] = len(self._writers)
        for writer in self._writers.values():
            writer.add(frames)

    async def run(self) -> None:
        """Write until cancelled. Raises `DeadLetterError` when a frame can be stored nowhere."""
        self._fatal = asyncio.get_running_loop().create_future()
        await run_together(
            {f"write-{name}": writer.run() for name, writer in self._writers.items()}
            | {"dead-letters": self._until_fatal(self._fatal)}
        )

    async def _until_fatal(self, fatal: asyncio.Future[None]) -> None:
        await fatal

    def hurry(self) -> None:
        """Stop gathering blocks: the worker is draining."""
        for writer in self._writers.values():
            writer.hurry()

    def linger(self) -> None:
        """Gather blocks again."""
        for writer in self._writers.values():
            writer.linger()

    def troubles(self) -> dict[str, SinkTrouble]:
        """The sinks that cannot write at the moment."""
        return {name: w.trouble for name, w in self._writers.items() if w.trouble is not None}

    def _written(self, sink: Sink, frames: Sequence[Frame]) -> None:
        self._on_written(frames, sink)
        for frame in frames:
            self._settle(frame)

    def _rejected(self, sink: Sink, frame: Frame, error: Exception, dead_letter: bool) -> None:
        keepers = [name for name in self._dead_letter_sinks if name in self._writers]
        if not dead_letter:
            frame.fail(Stage.SINK, "rejected", f"sink {sink.name} refuses the findings: {error}")
            for name in keepers:
                self._outstanding[frame] += 1
                self._writers[name].add([frame])
        refused_by = self._refused_by.setdefault(frame, set())
        if dead_letter:
            refused_by.add(sink.name)
        if refused_by.issuperset(keepers):
            self._fail(
                DeadLetterError(
                    f"sink {sink.name} refuses the dead letter of image '{frame.image_id}' "
                    f"({frame.origin.topic}/{frame.origin.partition}/{frame.origin.offset}), and "
                    f"no other sink keeps it: {error}. The record stays unacknowledged; raise the "
                    "sink's limits or skip the offset by hand"
                )
            )
            return
        self._settle(frame)

    def _settle(self, frame: Frame) -> None:
        left = self._outstanding[frame] - 1
        if left:
            self._outstanding[frame] = left
            return
        del self._outstanding[frame]
        self._refused_by.pop(frame, None)
        self._on_safe(frame)

    def _fail(self, error: DeadLetterError) -> None:
        if self._fatal is not None and not self._fatal.done():
            self._fatal.set_exception(error)
