"""Whether the stages of the pipeline overlap: their intervals in a real run, without Kafka.

Real photos go through the real decoder and operators into a sink that takes 20 ms a block. Each
stage's intervals are written down where the pipeline calls it; printed are how long each worked,
how much of that fell into the device's working time, and how long the device waited for frames.
Run as `python -m bench.overlap`; `--trace` names a file for chrome://tracing or Perfetto.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.photos import load_photos
from imagewire.native_environment import native_environment
from models.catalog import load_catalog
from models.device import choose_device
from operators.chain import OperatorChain, OutOfMemory
from operators.decode import make_decoder
from operators.decode_limits import DecodeLimits
from operators.decoder import Decoder
from operators.frame import Frame, Origin
from operators.policy import Policy
from operators.registry import build_operators
from sinks.sink import Sink
from streams.fetch import Fetcher
from streams.metrics import Metrics
from streams.pipeline import Pipeline
from streams.service_time import ServiceTimes
from streams.settings import BatchSettings, FetchSettings, StreamSettings

Interval = tuple[float, float, int]
"""Begin and end (`time.perf_counter`), and how many frames."""


@dataclass(slots=True)
class Trace:
    """What each stage did when."""

    intervals: dict[str, list[Interval]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def of(self, stage: str, frames: int) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            with self.lock:
                self.intervals.setdefault(stage, []).append((began, time.perf_counter(), frames))


class TracedDecoder:
    """A decoder, with the times of its parts."""

    def __init__(self, decoder: Decoder, trace: Trace) -> None:
        self._decoder, self._trace = decoder, trace

    def decode_parts(self, frames: Sequence[Frame]) -> Iterator[list[Frame]]:
        parts = self._decoder.decode_parts(frames)
        while True:
            with self._trace.of("decode", len(frames)):
                part = next(parts, None)
            if part is None:
                return
            yield part


class TracedChain:
    """A chain, with the times of analysis and decision."""

    def __init__(self, chain: OperatorChain, trace: Trace) -> None:
        self._chain, self._trace = chain, trace

    def analyse(self, frames: Sequence[Frame]) -> OutOfMemory | None:
        with self._trace.of("device", len(frames)):
            return self._chain.analyse(frames)

    def decide(self, frames: Sequence[Frame]) -> None:
        with self._trace.of("policy", len(frames)):
            self._chain.decide(frames)


class SlowSink(Sink):
    """Takes 20 ms a block, without the processor."""

    name = "kafka"

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    async def open(self) -> None: ...

    async def write(self, frames: Sequence[Frame]) -> None:
        with self._trace.of("sink", len(frames)):
            await asyncio.sleep(0.02)

    async def close(self) -> None: ...


async def traced_run(
    count: int, *, device: str = "auto", text: bool = False, max_batch: int = 16
) -> tuple[Trace, float, Metrics]:
    """Send `count` photos through; returns the trace, the seconds that it took, and the metrics."""
    trace, metrics, times = Trace(), Metrics(), ServiceTimes()
    where = choose_device(device)
    switched_off = {} if text else {"text": {"enabled": False}}
    chain = OperatorChain(
        build_operators(switched_off, where, load_catalog(())),
        Policy.load(None),
        times.observe,
    )
    chain.setup()
    decoder = make_decoder(where, DecodeLimits())
    photos = load_photos()
    try:
        async with Fetcher(FetchSettings()) as fetcher:
            pipeline = Pipeline(
                fetcher=fetcher,
                decoder=TracedDecoder(decoder, trace),
                chain=TracedChain(chain, trace),
                sinks=[SlowSink(trace)],
                metrics=metrics,
                stream=StreamSettings(),
                batch=BatchSettings(max_batch=max_batch),
                service_times=times,
            )
            running = asyncio.create_task(pipeline.run())
            try:
                await _send(pipeline, range(2 * max_batch), photos.content)
                trace.intervals.clear()
                began = time.perf_counter()
                await _send(pipeline, range(2 * max_batch, 2 * max_batch + count), photos.content)
                seconds = time.perf_counter() - began
            finally:
                running.cancel()
                await asyncio.wait([running])
    finally:
        decoder.close()
        chain.close()
    return trace, seconds, metrics


async def _send(pipeline: Pipeline, numbers: range, content: Callable[[int], bytes]) -> None:
    for number in numbers:
        value = content(number)
        origin = Origin("images", 0, number, 0, value=value)
        frame = Frame(str(number), "bench", 0, origin, content=value)
        await pipeline.submit(frame, lambda: None)
    await pipeline.ledger.wait_empty()


def overlapped(stage: Sequence[Interval], device: Sequence[Interval]) -> float:
    """The share of a stage's time in which the device worked as well."""
    total = sum(end - begin for begin, end, _ in stage)
    shared = sum(
        max(0.0, min(end, other_end) - max(begin, other_begin))
        for begin, end, _ in stage
        for other_begin, other_end, _ in device
    )
    return shared / total if total else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--text", action="store_true", help="with the operator text")
    parser.add_argument("--max-batch", type=int, default=16)
    parser.add_argument("--trace", type=Path, help="file for chrome://tracing")
    asked = parser.parse_args()
    if native_environment(os.environ):
        print(
            "malloc and oneDNN are not set as the worker sets them; the device is slower than there"
        )
    trace, seconds, metrics = asyncio.run(
        traced_run(asked.images, device=asked.device, text=asked.text, max_batch=asked.max_batch)
    )
    device = sorted(trace.intervals["device"])
    print(f"{asked.images / seconds:.1f} images/s over {seconds:.1f} s")
    for stage, intervals in trace.intervals.items():
        busy = sum(end - begin for begin, end, _ in intervals)
        frames = statistics.mean(count for _, _, count in intervals)
        print(
            f"{stage:>7}: {len(intervals):4} calls of {frames:5.1f} frames,"
            f" busy {100 * busy / seconds:5.1f} % of the time,"
            f" {100 * overlapped(intervals, device):5.1f} % of that beside the device"
        )
    gaps = [after[0] - before[1] for before, after in itertools.pairwise(device)]
    if gaps:
        print(
            f"between batches the device waits {1000 * statistics.median(gaps):.2f} ms (median), "
            f"{100 * sum(gaps) / seconds:.1f} % of the time"
        )
    registry = metrics.registry
    late = registry.get_sample_value("imagewire_event_loop_delay_seconds_sum") or 0.0
    times = registry.get_sample_value("imagewire_event_loop_delay_seconds_count") or 1.0
    print(f"the event loop was {1000 * late / times:.2f} ms late on average")
    for bound in ("0.002", "0.005", "0.01"):
        within = registry.get_sample_value(
            "imagewire_event_loop_delay_seconds_bucket", {"le": bound}
        )
        print(f"  within {float(bound) * 1000:g} ms: {100 * (within or 0) / times:.0f} %")
    if asked.trace:
        events = [
            {
                "name": f"{stage} {frames}",
                "ph": "X",
                "ts": begin * 1e6,
                "dur": (end - begin) * 1e6,
                "pid": 1,
                "tid": stage,
            }
            for stage, intervals in trace.intervals.items()
            for begin, end, frames in intervals
        ]
        asked.trace.write_text(json.dumps(events))


if __name__ == "__main__":
    main()
