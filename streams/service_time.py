"""How long the device will need for a batch of a given size, learned from the batches it has done.

Launch cost plus cost a frame is too simple: networks run in buckets of shapes, caches overflow, an
operator sees only the frames that need it. So each operator has a table of its own, from batch size
to a median of what was measured, times a pace that all sizes share. Medians shrug off a stall (a
page fault, a first compilation); the pace carries a change for good, such as a device that heats up
or is shared, to sizes that have not come again since.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence

_SAMPLES = 9
"""Measurements kept for a batch size: four stalls among them do not move their median."""
_TRUSTED = 3
"""Measurements before a batch size counts, unless no size has as many."""
_PACE_SAMPLES = 3
"""Measurements that must agree before the pace changes: two stalls in a row do not move it, a third
is a change. Noise, which is now above and now below, does not move it either."""

_LARGEST_PACE = 16.0
"""No device slows down by more and goes on; a ratio beyond it says that the table is wrong."""


class ServiceTime:
    """Seconds that one operator needs for a batch; 0 until the first was observed."""

    def __init__(self) -> None:
        self._sizes: dict[int, deque[float]] = {}
        self._recent: deque[float] = deque(maxlen=_PACE_SAMPLES)
        self._pace = 1.0
        self._curve: list[tuple[int, float]] = []

    def observe(self, batch_size: int, seconds: float) -> None:
        """Learn that a batch of `batch_size` frames took `seconds`."""
        if batch_size < 1 or not 0 <= seconds < math.inf:
            return
        samples = self._sizes.setdefault(_bucket(batch_size), deque(maxlen=_SAMPLES))
        if len(samples) >= _TRUSTED:
            expected = _on(self._curve, batch_size)
            if expected > 0 and seconds > 0:
                ratio = seconds / expected
                self._recent.append(min(max(ratio, 1 / _LARGEST_PACE), _LARGEST_PACE))
                self._follow()
        # Kept as if measured at the pace of the beginning, so that a later pace applies to it.
        samples.append(seconds / self._pace)
        self._curve = self._rising_curve()

    def _follow(self) -> None:
        """Change the pace as far as all of the last measurements agree that it has changed."""
        if len(self._recent) == _PACE_SAMPLES:
            lowest, highest = min(self._recent), max(self._recent)
            self._pace = min(max(self._pace, lowest), highest)

    def predict(self, batch_size: int) -> float:
        """Seconds for a batch of `batch_size` frames; never less for more frames."""
        return self._pace * _on(self._curve, batch_size)

    def _rising_curve(self) -> list[tuple[int, float]]:
        """(largest batch size, seconds) for each bucket, in which more frames never take less time.

        Where measurements say otherwise, neighbours are pooled with the weight of their
        measurements (isotonic regression by pooling adjacent violators).
        """
        pools: list[tuple[float, int, list[int]]] = []
        # One or two measurements may have been stalls, which would lift their neighbours, too.
        trusted = [bucket for bucket in self._sizes if len(self._sizes[bucket]) >= _TRUSTED]
        for bucket in sorted(trusted or self._sizes):
            samples = self._sizes[bucket]
            weight = len(samples)
            seconds = _median(samples)
            members = [bucket]
            while pools and pools[-1][0] > seconds:
                longer, others, smaller = pools.pop()
                seconds = (seconds * weight + longer * others) / (weight + others)
                weight += others
                members = smaller + members
            pools.append((seconds, weight, members))
        return [(size, seconds) for seconds, _, members in pools for size in members]


class ServiceTimes:
    """The service times of every operator, and their sum. May be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages: dict[str, ServiceTime] = {}

    def observe(self, stage: str, batch_size: int, seconds: float) -> None:
        """Learn that `stage` took `seconds` for `batch_size` frames."""
        with self._lock:
            self._stages.setdefault(stage, ServiceTime()).observe(batch_size, seconds)

    def predict(self, batch_size: int) -> float:
        """Seconds for a batch of `batch_size` frames that every stage observed so far will see."""
        with self._lock:
            return sum(stage.predict(batch_size) for stage in self._stages.values())

    def by_stage(self, batch_size: int) -> dict[str, float]:
        """The same, stage by stage."""
        with self._lock:
            return {name: stage.predict(batch_size) for name, stage in self._stages.items()}


def _bucket(batch_size: int) -> int:
    """Four buckets between powers of two: 1 to 8 each for itself, then 9–10, 11–12, … 17–20, …"""
    step = 1 << max(0, (batch_size - 1).bit_length() - 3)
    return -(-batch_size // step) * step


def _median(values: Iterable[float]) -> float:
    """The lower median: of two measurements one may have been a stall, which only adds time."""
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2]


def _on(curve: Sequence[tuple[int, float]], batch_size: int) -> float:
    """Seconds on a rising curve: on the line between two buckets, and along it beyond them."""
    if not curve:
        return 0.0
    size = _bucket(batch_size)
    place = bisect_left(curve, (size, -math.inf))
    if place < len(curve) and curve[place][0] == size:
        return curve[place][1]
    if len(curve) == 1:
        return curve[0][1] * size / curve[0][0]
    # Beyond the last, its slope over all sizes: between two neighbours there may be a step.
    low, high = (0, -1) if place == len(curve) else (max(place, 1) - 1, max(place, 1))
    (small, shorter), (large, longer) = curve[low], curve[high]
    seconds = shorter + (longer - shorter) * (size - small) / (large - small)
    # Below the first, no less than in proportion.
    return max(seconds, shorter * size / small) if place == 0 else seconds
