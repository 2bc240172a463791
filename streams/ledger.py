"""The offset ledger: which records are in flight, and which offsets may be committed.

Faust commits the highest run of acknowledged offsets, but with nothing committed yet it starts that
run at the lowest offset that was acknowledged, whatever is still in flight below. So offsets are
acknowledged strictly in their order here, one partition at a time: a record is acknowledged when it
and every record before it in its partition is safe in every sink.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

Partition = tuple[str, int]
"""Topic and partition number."""


@dataclass(slots=True, eq=False)
class Entry:
    """One record in flight. `acknowledge` is called at most once, in offset order. `size`: bytes
    that it takes from the budget of what may be in flight."""

    partition: Partition
    offset: int
    acknowledge: Callable[[], object]
    finished: bool = False
    revoked: bool = False
    size: int = 0


class Ledger:
    """Acknowledges records in offset order per partition. For use in one event loop."""

    def __init__(self) -> None:
        self._queues: dict[Partition, deque[Entry]] = {}
        self._positions: dict[Partition, int] = {}
        self._in_flight = 0
        self._unfinished = 0
        self._revocations = 0
        self._changed = asyncio.Event()

    def begin(
        self, partition: Partition, offset: int, acknowledge: Callable[[], object], size: int = 0
    ) -> Entry:
        """Enter a record that was taken from Kafka. Call in the order of delivery."""
        entry = Entry(partition, offset, acknowledge, size=size)
        queue = self._queues.get(partition)
        if queue is None:
            queue = self._queues[partition] = deque()
            self._positions.setdefault(partition, offset)
        queue.append(entry)
        self._in_flight += 1
        self._unfinished += 1
        return entry

    def finish(self, entry: Entry) -> None:
        """The record is safe in every sink: acknowledge it, and what waited only for it.

        A record whose partition was revoked meanwhile is not acknowledged: its new owner has it.
        """
        if entry.finished:
            raise ValueError(f"offset {entry.offset} of {entry.partition} finished twice")
        entry.finished = True
        if entry.revoked:
            return
        self._unfinished -= 1
        queue = self._queues[entry.partition]
        while queue and queue[0].finished:
            head = queue.popleft()
            self._in_flight -= 1
            self._positions[entry.partition] = head.offset + 1
            head.acknowledge()
        self._changed.set()

    def revoke(self, partitions: Iterable[Partition] | None = None) -> int:
        """Forget what is in flight in these partitions (all of them by default).

        Returns:
            How many records were dropped unacknowledged; they will be delivered again.
        """
        self._revocations += 1
        dropped = 0
        for partition in list(self._queues) if partitions is None else partitions:
            self._positions.pop(partition, None)
            for entry in self._queues.pop(partition, ()):
                entry.revoked = True
                dropped += 1
                self._in_flight -= 1
                if not entry.finished:
                    self._unfinished -= 1
        self._changed.set()
        return dropped

    def positions(self) -> dict[Partition, int]:
        """The next offset to acknowledge in each partition that records came from."""
        return dict(self._positions)

    @property
    def revocations(self) -> int:
        """How often partitions were revoked. A record that was delivered before a revocation must
        not begin after it: it is delivered again, in its order."""
        return self._revocations

    @property
    def in_flight(self) -> int:
        """Records taken and not yet acknowledged."""
        return self._in_flight

    @property
    def unfinished(self) -> int:
        """Records taken and not yet safe in every sink."""
        return self._unfinished

    async def wait_empty(self) -> None:
        """Wait until nothing is unfinished. Bound it with `asyncio.timeout`."""
        while self._unfinished:
            self._changed.clear()
            await self._changed.wait()
