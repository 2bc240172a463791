"""Gathers frames into batches under a latency cap.

A free device takes what is ready at once, or its share if there are others, and frames gather only
while all are busy (work-conserving batching); so at low load nothing waits, and at high load
batches grow by themselves. Where full batches matter more, a batch closes at its size, at its
bytes, or when its OLDEST frame has waited `max_wait` less the service time predicted for it: age
counts from the frame's own arrival, not from a timer. `BatchQueue` decides, on whatever clock it is
given; `MicroBatcher` waits.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from operators.frame import Frame, Lane

_SMALLEST_SHARE = 4
"""A full batch is shared out in no less than quarters: an image in a batch of 4 costs a network on
a processor hardly more than in one of 16, and one by itself up to half as much again (`make bench
ONLY=ceiling`). Only while bulk waits are live frames shared out by as few as take about the time of
one: takers that are busy with bulk come free one after the other, and the first must not take what
the next would do sooner."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What closes a batch. Bytes are whatever the queue's `size_of` measures; `takers` is how many
    take batches side by side, such as copies of the models."""

    max_batch: int = 16
    max_batch_bytes: int = 512 * 1024 * 1024
    max_wait: float = 0.2
    work_conserving: bool = True
    takers: int = 1

    def __post_init__(self) -> None:
        if min(self.max_batch, self.max_batch_bytes, self.takers) < 1 or self.max_wait < 0:
            raise ValueError(
                f"max_batch ({self.max_batch}), max_batch_bytes ({self.max_batch_bytes}) and "
                f"takers ({self.takers}) must be at least 1, max_wait ({self.max_wait}) at least 0"
            )


_LIVE_IS_ABOUT_SECONDS = 10.0
"""So long without a live frame, and bulk has the device for itself. A burst of live frames that
comes after a pause meets one full batch of bulk; one live frame every few seconds is a stream."""
_BULK_MAY_ADD = 0.25
"""By how much of its own time bulk may stretch a batch while live frames come: the next live frame
waits for the rest of it. On a processor, where every frame takes its time, that is one bulk frame
at a time; on a GPU, which does several in the time of one, as many as that."""


@dataclass(slots=True)
class _Waiting:
    frame: Frame
    size: int


class BatchQueue:
    """Frames that wait for the device, and the rules by which they leave. Knows no event loop.

    Live frames leave first; bulk frames fill what is left of a batch. While live frames come, bulk
    fills it only as far as that hardly takes the device longer, since the next live frame has to
    wait for it. Within a lane the order of arrival is kept.

    A free taker whose work is conserved does not leave the others without any: of what would not
    fill a batch for each of them it takes its share (guided self-scheduling, Polychronopoulos and
    Kuck 1987), so that at the end of a burst none is idle while another does a whole batch. Bulk
    that waits never makes a taker's share of the live frames larger.
    """

    def __init__(
        self,
        limits: BatchLimits,
        size_of: Callable[[Frame], int],
        predict: Callable[[int], float] = lambda batch_size: 0.0,
        admits: Callable[[Lane], bool] = lambda lane: True,
    ) -> None:
        """
        Args:
            size_of: bytes of a frame, as they count in `limits`.
            predict: seconds that the stage behind will need for a batch of a size.
            admits: whether the stage behind has room for frames of a lane; while it has not, they
                stay here and the other lane's frames leave without them.
        """
        self._limits = limits
        self._least_share = max(limits.max_batch // _SMALLEST_SHARE, 1)
        self._size_of = size_of
        self._predict = predict
        self._admits = admits
        self._lanes: dict[Lane, deque[_Waiting]] = {Lane.LIVE: deque(), Lane.BULK: deque()}
        self._lane_bytes = dict.fromkeys(self._lanes, 0)
        self._last_live = float("-inf")

    def limit_to(self, max_batch: int) -> bool:
        """From now on a batch holds at most `max_batch` frames; returns whether that is new."""
        if max_batch == self._limits.max_batch:
            return False
        self._limits = replace(self._limits, max_batch=max_batch)
        return True

    def add(self, frame: Frame) -> None:
        size = self._size_of(frame)
        self._lanes[frame.lane].append(_Waiting(frame, size))
        self._lane_bytes[frame.lane] += size

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def waiting(self, lane: Lane) -> tuple[int, int]:
        """How many frames of one lane wait, and their bytes."""
        items = self._lanes[lane]
        return len(items), self._lane_bytes[lane]

    def ahead(self, lane: Lane) -> float:
        """Seconds for which the waiting frames of a lane keep every taker busy, as predicted; 0 if
        nothing is known of the time a batch takes."""
        limits = self._limits
        rounds = len(self._lanes[lane]) / (limits.max_batch * limits.takers)
        return rounds * self._predict(limits.max_batch)

    def closes_at(self) -> float | None:
        """When the next batch closes by age, on the clock of `Frame.received_at`; `None` if no
        frame may leave.

        A batch that is full, or any batch under work-conserving limits, closes at once
        (minus infinity).
        """
        lanes = [lane for lane, items in self._lanes.items() if items and self._admits(lane)]
        if not lanes:
            return None
        limits = self._limits
        waiting = sum(len(self._lanes[lane]) for lane in lanes)
        if (
            limits.work_conserving
            or waiting >= limits.max_batch
            or sum(self._lane_bytes[lane] for lane in lanes) >= limits.max_batch_bytes
        ):
            return float("-inf")
        # Frames of one lane arrive in the order of Kafka but are fetched side by side, so the
        # oldest is not always the first.
        oldest = min(item.frame.received_at for lane in lanes for item in self._lanes[lane])
        return oldest + limits.max_wait - self._predict(waiting)

    def only_bulk_beside_live(self, now: float) -> bool:
        """Whether live frames come, but none waits."""
        return self._live_is_about(now) and not self._lanes[Lane.LIVE]

    def _shares(self) -> dict[Lane, int]:
        """How large a batch may become by frames of each lane."""
        limits = self._limits
        if limits.takers == 1 or not limits.work_conserving:
            return dict.fromkeys(Lane, limits.max_batch)
        live, bulk = (
            len(self._lanes[lane]) if self._admits(lane) else 0 for lane in (Lane.LIVE, Lane.BULK)
        )
        least_live = self._least_beside_bulk() if bulk else self._least_share
        of_live = max(-(-live // limits.takers), least_live)
        of_all = max(-(-(live + bulk) // limits.takers), self._least_share)
        return {
            Lane.LIVE: min(of_live, limits.max_batch),
            Lane.BULK: min(of_all, limits.max_batch),
        }

    def _least_beside_bulk(self) -> int:
        """As many live frames, up to the least share, as take about the time of one."""
        least, most = 1, (1 + _BULK_MAY_ADD) * self._predict(1)
        while least < self._least_share and self._predict(least + 1) <= most:
            least += 1
        return least

    def cut(self, now: float = 0.0) -> list[Frame]:
        """Take the next batch: never more than the limits allow, but at least one frame if any
        may leave.

        Args:
            now: on the clock of `Frame.received_at`.
        """
        batch: list[Frame] = []
        size = 0
        if self._lanes[Lane.LIVE]:
            self._last_live = now
        live_is_about = self._live_is_about(now)
        shares = self._shares()
        own = max(min(len(self._lanes[Lane.LIVE]), shares[Lane.LIVE]), 1)
        most = (1 + _BULK_MAY_ADD) * self._predict(own)
        for lane in (Lane.LIVE, Lane.BULK):
            items = self._lanes[lane] if self._admits(lane) else ()
            while items and len(batch) < shares[lane]:
                if batch and size + items[0].size > self._limits.max_batch_bytes:
                    return batch
                if (
                    batch
                    and lane is Lane.BULK
                    and live_is_about
                    and self._predict(len(batch) + 1) > most
                ):
                    return batch
                item = items.popleft()
                batch.append(item.frame)
                size += item.size
                self._lane_bytes[lane] -= item.size
        return batch

    def _live_is_about(self, now: float) -> bool:
        return now - self._last_live < _LIVE_IS_ABOUT_SECONDS

    def clear(self) -> list[Frame]:
        """Take everything that waits, in no particular batch."""
        frames = [item.frame for lane in self._lanes.values() for item in lane]
        for lane in self._lanes:
            self._lanes[lane].clear()
            self._lane_bytes[lane] = 0
        return frames


class MicroBatcher:
    """A bounded queue between two stages: frames go in one by one and come out in batches.

    `put` waits while its lane holds `max_frames` or `max_bytes`, which is how a slow stage slows
    the ones before it; each lane has that room of its own, so that bulk frames never keep live
    ones out. One frame is always admitted, however large.
    """

    def __init__(
        self,
        limits: BatchLimits,
        size_of: Callable[[Frame], int],
        *,
        max_frames: int,
        max_bytes: int,
        predict: Callable[[int], float] = lambda batch_size: 0.0,
        admits: Callable[[Lane], bool] = lambda lane: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """See `BatchQueue` for the rest. Call `wake` when `admits` has changed its mind."""
        self._queue = BatchQueue(limits, size_of, predict, admits)
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._clock = clock
        self._arrived = asyncio.Event()
        self._left = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._queue)

    def limit_to(self, max_batch: int) -> None:
        """From now on a batch holds at most `max_batch` frames."""
        if self._queue.limit_to(max_batch):
            self._arrived.set()  # what was not enough for a full batch may be now

    async def put(self, frame: Frame) -> None:
        """Add a frame, waiting for room."""
        while not self.has_room(frame.lane):
            self._left.clear()
            await self._left.wait()
        self._queue.add(frame)
        self._arrived.set()

    def has_room(self, lane: Lane, frames: int = 1) -> bool:
        """Whether `frames` more of a lane can be put without waiting, their bytes permitting."""
        waiting, size = self._queue.waiting(lane)
        return not waiting or (waiting + frames <= self._max_frames and size < self._max_bytes)

    def ahead(self, lane: Lane) -> float:
        """Seconds for which the waiting frames of a lane keep every taker busy, as predicted."""
        return self._queue.ahead(lane)

    def wake(self) -> None:
        """Look again whether a batch may leave."""
        self._arrived.set()

    async def take(self, *, bulk_alone: bool = True) -> list[Frame]:
        """Wait until a batch closes and take it. Call when the device is free.

        Args:
            bulk_alone: whether to take bulk frames with no live one among them while live ones
                come. One of several takers is enough for that: the others are free for the next.

        Returns:
            At least one frame; an empty list only after `close`, when nothing is left.
        """
        while True:
            now = self._clock()
            may = self._closed or bulk_alone or not self._queue.only_bulk_beside_live(now)
            closes_at = self._queue.closes_at() if may else None
            if closes_at is not None and (self._closed or closes_at <= now):
                batch = self._queue.cut(now)
                self._left.set()
                return batch
            if self._closed and not len(self._queue):
                return []
            self._arrived.clear()
            timeout = None if closes_at is None else closes_at - self._clock()
            try:
                # Not `wait_for`, which in Python 3.11 swallows a cancellation that comes together
                # with what it waits for.
                async with asyncio.timeout(timeout):
                    await self._arrived.wait()
            except TimeoutError:
                continue

    def close(self) -> None:
        """No more frames will come: `take` returns what is left and then empty lists."""
        self._closed = True
        self._arrived.set()

    def clear(self) -> Sequence[Frame]:
        """Drop and return everything that waits."""
        frames = self._queue.clear()
        self._left.set()
        self._arrived.set()
        return frames
