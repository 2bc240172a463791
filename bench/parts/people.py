"""What people's decisions and tombstones cost each image: processor time, and memory for each.

No broker and no stream: a worker's tables filled as its topics would fill them, then asked as the
worker asks them for every frame, on one thread.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Sequence

from bench.figures import Options, Report, figure
from operators.findings import Findings, Fingerprint, RuleHit, Verdict
from operators.frame import Frame, Origin
from streams.reviews import Decision
from streams.reviews_audit import AuditSampling
from streams.reviews_first import PeopleFirst
from streams.reviews_overrides import Overrides, override_records
from streams.tombstones import Tombstones, tombstone_record

NOW = 1_790_000_000_000


def run(options: Options) -> Report:
    """Fill both tables, then ask them by turns."""
    count = 1_000 if options.quick else 100_000
    overrides, override_bytes = _filled_overrides(count)
    tombstones, tombstone_bytes = _filled_tombstones(count)
    people_first = PeopleFirst(overrides, AuditSampling(0.001, 0.01, {"rule-0": 0.05}))
    frames = _frames(count)
    decided: list[float] = []
    dropped: list[float] = []
    for _ in range(1 if options.quick else options.repeats):
        decided.append(_microseconds(lambda: people_first(frames), len(frames)))
        dropped.append(
            _microseconds(lambda: [tombstones.covers_frame(frame) for frame in frames], len(frames))
        )
        options.report(f"decisions {decided[-1]:.2f} µs, tombstones {dropped[-1]:.2f} µs an image")
    return Report(
        "People's decisions and tombstones",
        "make bench ONLY=people",
        f"Processor time for each image, with {count} decided images (two keys each) and {count} "
        "tombstones held; half of the images are known to the one and none to the other. Memory is "
        "that of Python's objects, by tracemalloc.",
        [
            figure("people_decision_us", decided, target=20.0, better="lower", unit="µs"),
            figure("people_tombstone_us", dropped, target=20.0, better="lower", unit="µs"),
            figure("people_override_bytes", [override_bytes], better="lower", unit="B"),
            figure("people_tombstone_bytes", [tombstone_bytes], better="lower", unit="B"),
        ],
    )


def _microseconds(work: Callable[[], object], images: int) -> float:
    begun = time.process_time()
    work()
    return (time.process_time() - begun) / images * 1e6


def _filled_overrides(count: int) -> tuple[Overrides, float]:
    """Decisions on `count` images, and the bytes that one key takes."""
    overrides = Overrides(2 * count)

    def fill() -> None:
        for number in range(count):
            decision = Decision(
                f"image-{number}", "block", "ann", NOW, f"d-{number}", f"{number:064x}"
            )
            for key, value in override_records(decision):
                overrides.apply(key, value)

    return overrides, _allocated(fill) / len(overrides)


def _filled_tombstones(count: int) -> tuple[Tombstones, float]:
    tombstones = Tombstones()

    def fill() -> None:
        for number in range(count):
            tombstones.apply(*tombstone_record("image", f"gone-{number}", NOW))

    return tombstones, _allocated(fill) / len(tombstones)


def _allocated(fill: Callable[[], None]) -> float:
    tracemalloc.start()
    try:
        fill()
        return float(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()


def _frames(count: int) -> Sequence[Frame]:
    """As many images as are decided up to 20 000, every second of which nobody decided."""
    frames = []
    for number in range(min(count, 20_000)):
        name = f"image-{number}" if number % 2 else f"new-{number}"
        content = number if number % 2 else count + number
        frame = Frame(name, "gate", NOW, Origin("images", 0, number, NOW))
        frame.findings = Findings(
            fingerprint=Fingerprint(f"{content:064x}"),
            verdict=Verdict("block", "p-1", [RuleHit("rule-0", "block"), RuleHit("r", "review")]),
        )
        frames.append(frame)
    return frames
