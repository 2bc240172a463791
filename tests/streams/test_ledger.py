"""Promises of the offset ledger: offsets leave in order, not too early, not after a revoke."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streams.ledger import Entry, Ledger, Partition

PARTITIONS: list[Partition] = [("images", 0), ("images", 1), ("images.bulk", 0)]


class Log:
    """A partition's records and which of them were acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: dict[Partition, list[int]] = defaultdict(list)

    def begin(self, ledger: Ledger, partition: Partition, offset: int) -> Entry:
        return ledger.begin(partition, offset, lambda: self.acknowledged[partition].append(offset))


class AnyInterleaving(RuleBasedStateMachine):
    """Records come, finish in any order, and partitions are taken away at any moment."""

    @initialize()
    def start(self) -> None:
        self.ledger = Ledger()
        self.log = Log()
        self.next_offset = dict.fromkeys(PARTITIONS, 0)
        self.taken: dict[Partition, list[Entry]] = {p: [] for p in PARTITIONS}
        self.revoked: list[Entry] = []
        self.acknowledged_before: dict[Partition, int] = dict.fromkeys(PARTITIONS, 0)

    @rule(partition=st.sampled_from(PARTITIONS), gap=st.integers(1, 3))
    def begin(self, partition: Partition, gap: int) -> None:
        offset = self.next_offset[partition]
        # Compacted topics have holes.
        self.next_offset[partition] = offset + gap
        self.taken[partition].append(self.log.begin(self.ledger, partition, offset))

    def unfinished(self) -> list[Entry]:
        entries = [entry for taken in self.taken.values() for entry in taken] + self.revoked
        return [entry for entry in entries if not entry.finished]

    @precondition(lambda self: self.unfinished())
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.ledger.finish(data.draw(st.sampled_from(self.unfinished())))

    @rule(partitions=st.none() | st.sets(st.sampled_from(PARTITIONS)))
    def revoke(self, partitions: set[Partition] | None) -> None:
        chosen = PARTITIONS if partitions is None else partitions
        expected = sum(len(self.waiting(partition)) for partition in chosen)
        assert self.ledger.revoke(partitions) == expected
        for partition in chosen:
            self.revoked += self.waiting(partition)
            self.taken[partition] = []
            # What was not acknowledged is delivered again, from where it was left.
            done = self.log.acknowledged[partition]
            self.acknowledged_before[partition] = len(done)
            self.next_offset[partition] = done[-1] + 1 if done else 0

    def acknowledged_since_revoke(self, partition: Partition) -> list[int]:
        return self.log.acknowledged[partition][self.acknowledged_before[partition] :]

    def waiting(self, partition: Partition) -> list[Entry]:
        """Taken and not acknowledged."""
        return self.taken[partition][len(self.acknowledged_since_revoke(partition)) :]

    @invariant()
    def acknowledged_is_the_longest_finished_run_in_order(self) -> None:
        for partition in PARTITIONS:
            finished_run: list[int] = []
            for entry in self.taken[partition]:
                if not entry.finished:
                    break
                finished_run.append(entry.offset)
            assert self.acknowledged_since_revoke(partition) == finished_run

    @invariant()
    def counters_are_right(self) -> None:
        waiting = [entry for partition in PARTITIONS for entry in self.waiting(partition)]
        assert self.ledger.in_flight == len(waiting)
        assert self.ledger.unfinished == sum(not entry.finished for entry in waiting)

    @invariant()
    def positions_are_the_next_offsets_to_acknowledge(self) -> None:
        expected = {}
        for partition, taken in self.taken.items():
            if taken:
                done = self.acknowledged_since_revoke(partition)
                expected[partition] = done[-1] + 1 if done else taken[0].offset
        assert self.ledger.positions() == expected

    def teardown(self) -> None:
        for entry in self.unfinished():
            self.ledger.finish(entry)
        for partition, taken in self.taken.items():
            assert self.acknowledged_since_revoke(partition) == [e.offset for e in taken]
        assert self.ledger.in_flight == self.ledger.unfinished == 0


TestAnyInterleaving = AnyInterleaving.TestCase
TestAnyInterleaving.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_record_cannot_finish_twice() -> None:
    ledger = Ledger()
    entry = ledger.begin(("images", 0), 5, lambda: None)
    ledger.finish(entry)
    with pytest.raises(ValueError, match=r"offset 5 of .*images.* finished twice"):
        ledger.finish(entry)


async def test_wait_empty_returns_at_once_when_nothing_is_unfinished() -> None:
    await asyncio.wait_for(Ledger().wait_empty(), 30)


async def test_wait_empty_waits_for_the_last_record_of_every_partition() -> None:
    ledger = Ledger()
    entries = [ledger.begin(p, offset, lambda: None) for p in PARTITIONS for offset in range(2)]
    waiters = [asyncio.create_task(ledger.wait_empty()) for _ in range(2)]
    for entry in reversed(entries):
        await asyncio.sleep(0)
        assert not any(waiter.done() for waiter in waiters)
        ledger.finish(entry)
    await asyncio.wait_for(asyncio.gather(*waiters), 30)


async def test_wait_empty_ends_when_what_is_unfinished_is_revoked() -> None:
    ledger = Ledger()
    ledger.begin(("images", 0), 0, lambda: None)
    waiter = asyncio.create_task(ledger.wait_empty())
    await asyncio.sleep(0)
    ledger.revoke()
    await asyncio.wait_for(waiter, 30)
