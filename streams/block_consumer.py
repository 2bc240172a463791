"""Faust's consumer, handing records over in blocks instead of one by one.

Faust spends about 70 µs of processor time on an event, most of it on two tasks that it makes to
wait for each, which is more than all of Imagewire's own work on an image. So what one fetch brought
from a partition travels to the agent as one event. All else stays Faust's: the group, rebalancing,
flow control and commits. While an agent is busy with a partition's block that partition is not
fetched from, and only that one, so a lane that is full never holds up the other.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from contextlib import suppress
from typing import Any

from faust.transport.drivers.aiokafka import (
    AIOKafkaConsumerThread,
)
from faust.transport.drivers.aiokafka import (
    Consumer as AIOKafkaFaustConsumer,
)
from faust.transport.drivers.aiokafka import (
    Transport as AIOKafkaFaustTransport,
)
from faust.types.tuples import ConsumerMessage

from streams.renewed_topic import ForgetfulOffsets, commit_what_exists

# Faust and mode name a service's logger by the module of its class. Those of the classes below tell
# of Faust's affairs (starting, stopping), so they belong with Faust's.
FAUST_LOGGER = logging.getLogger("faust.imagewire")

_IDLE_FETCH_SECONDS = 1.0
_HELD_FETCH_SECONDS = 0.05
_FETCH_SECONDS = 0.02
"""A fetch that waits does not see partitions that are let go meanwhile, hence short waits while
records come. But 50 empty fetches a second cost an idle worker 2.6 % of a core and Kafka 3.5 %
(measured on two cores): so a wait may be as long as nothing has come before it."""


_REST_SHARE = 0.25
_LONGEST_REST_SECONDS = 0.1
"""While decoded live images wait for the device, more are not fetched one by one as they come, but
after a share of the time that those will take: 40 fetches a second, each of which wakes the broker,
two threads and an agent, cost models on the same cores 5 % of their throughput at 110 % load (two
cores, medians of five interleaved repeats). The share leaves the device busy though a prediction be
wrong by half, and the bound keeps images of the other lane from waiting for long."""


class Block(ConsumerMessage):
    """What one fetch brought from a partition, as one of Faust's messages.

    Attributes:
        records: aiokafka's records in the order of their offsets; whoever takes one removes it.
    """

    __slots__ = ("_consumer", "_interruptions", "records")

    def __init__(self, consumer: BlockConsumer, tp: Any, records: list[Any]) -> None:
        last = records[-1]
        super().__init__(
            topic=tp.topic,
            partition=tp.partition,
            offset=last.offset,
            timestamp=max(last.timestamp or 0, 0) / 1000,
            timestamp_type=last.timestamp_type,
            headers=None,
            key=None,
            value=None,
            checksum=None,
            tp=tp,
            generation_id=consumer.app.consumer_generation_id,
        )
        self.records = deque(records)
        self._consumer = consumer
        self._interruptions = consumer.interruptions

    @property
    def interrupted(self) -> bool:
        """Whether the flow stopped after this block was fetched. What is left of it must not be
        taken then: Kafka delivers it again, to whoever has the partition."""
        return self._interruptions != self._consumer.interruptions

    def acknowledge(self, offset: int) -> None:
        """Let `offset`, and with it all before it in the partition, be committed."""
        self._consumer.acknowledge(self.tp, offset)

    def release(self) -> None:
        """The block is done with: its partition is fetched from again."""
        self._consumer.release(self)


class _PromptConsumerThread(AIOKafkaConsumerThread):
    """Says how long the broker may keep an empty fetch: Faust fixes 1.5 s (faust-streaming
    0.15.3)."""

    logger = FAUST_LOGGER

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = round(1000 * _FETCH_SECONDS)
        return consumer

    def let_fetches_wait(self, seconds: float) -> None:
        """From the next fetch on."""
        if self._consumer is not None and self._consumer._fetcher is not None:
            self._consumer._fetcher._fetch_max_wait_ms = max(round(1000 * seconds), 1)

    async def on_thread_stop(self) -> None:
        try:
            await super().on_thread_stop()
        except asyncio.CancelledError:
            # While the broker is away, aiokafka 0.14 lets the cancellation of its own fetch escape.
            # The thread would take it for its own and not say for a minute that it has ended.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            if self._consumer is not None:
                await self._consumer._client.close()

    async def _commit(self, offsets: Any) -> bool:
        # Faust leaves out partitions that were lost meanwhile and ends when none is left.
        ours = self.assignment()
        held = {tp: offset for tp, offset in offsets.items() if tp in ours}
        return await commit_what_exists(super()._commit, held, self._is_gone)

    def _is_gone(self, topic: str) -> bool:
        consumer = self._consumer
        return consumer is not None and consumer._coordinator._metadata_snapshot.get(topic) == 0


class BlockConsumer(AIOKafkaFaustConsumer):
    """Commits what the ledger acknowledged: everything up to the last acknowledged offset.

    Faust looks for gaps itself, since it expects acknowledgements in any order. Where nothing is
    committed yet it does not see them, and a gap that a compacted topic has after its offset 0
    stops its commits for good; the ledger's order makes all of that needless.

    Attributes:
        interruptions: how often the flow was stopped, at a rebalance or at the end.
    """

    logger = FAUST_LOGGER

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.interruptions = 0
        self._held: dict[Any, Block] = {}
        self._released = asyncio.Event()
        self._last_block_at = time.monotonic()
        super().__init__(*args, **kwargs)
        self._read_offset: Any = ForgetfulOffsets()
        self._committed_offset: Any = ForgetfulOffsets()

    def _new_consumer_thread(self) -> _PromptConsumerThread:
        return _PromptConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def acknowledge(self, tp: Any, offset: int) -> None:
        """Let everything up to `offset` be committed. Offsets come in their order."""
        self._acked[tp] = [offset]

    def release(self, block: Block) -> None:
        """Fetch again from the partition of `block`."""
        if self._held.get(block.tp) is block:
            del self._held[block.tp]
            self._released.set()

    def stop_flow(self) -> None:
        """Blocks that were handed over are void from here on: see `Block.interrupted`."""
        self.interruptions += 1
        self._last_block_at = time.monotonic()
        self._held.clear()
        self._released.set()
        super().stop_flow()

    async def _getmany(
        self,
        active_partitions: set[Any] | None,
        timeout: float,  # noqa: ASYNC109 - Faust's signature
    ) -> Any:
        free = {tp for tp in active_partitions or () if tp not in self._held}
        if not free:
            self._released.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._released.wait()
            return {}
        return await super()._getmany(
            active_partitions=free,
            timeout=min(timeout, self._patience(_HELD_FETCH_SECONDS)) if self._held else timeout,
        )

    def _patience(self, least: float) -> float:
        """Seconds to wait: as long as nothing has come, between `least` and the setting."""
        quiet = time.monotonic() - self._last_block_at
        app: Any = self.app
        longest: float = app.fetch_max_wait
        return min(max(quiet, least), longest)

    async def _drain_messages(self, fetcher: Any) -> None:
        # In the place of Faust's loop over single messages. What ends it is treated alike.
        try:
            while not (self.should_stop or fetcher.should_stop):
                await self._take_blocks()
        except (Exception, asyncio.CancelledError) as error:
            ends = isinstance(error, (*self.consumer_stopped_errors, asyncio.CancelledError))
            if ends and self.app.should_stop:
                self.log.info("the consumer is stopped")
                return
            if not ends:
                self.log.exception("taking records failed: %r", error)
            raise

    async def _take_blocks(self) -> None:
        app: Any = self.app
        await asyncio.sleep(min(_REST_SHARE * app.ahead(), _LONGEST_REST_SECONDS))
        interruptions = self.interruptions
        thread: Any = self._thread
        thread.let_fetches_wait(self._patience(_FETCH_SECONDS))
        records, _ = await self._wait_next_records(_IDLE_FETCH_SECONDS)
        # A fetch may be answered without ever waiting.
        await asyncio.sleep(0)
        if self.should_stop or not records:
            return
        if interruptions != self.interruptions or not self.flow_active:
            # The position has passed these records, and nobody will take them.
            try:
                await self.perform_seek()
            except Exception as error:  # noqa: BLE001 - a rebalance under way seeks again at its end
                self.log.warning("going back to the committed offsets failed: %r", error)
            return
        for tp, found in records.items():
            await self._hand_over(tp, found)
            if interruptions != self.interruptions:
                return

    async def _hand_over(self, tp: Any, records: list[Any]) -> None:
        self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
        block = Block(self, tp, records)
        self._held[tp] = block
        self._last_block_at = time.monotonic()
        await self.wait_first(self.callback(block), self.suspend_flow.wait())

    def _new_offset(self, tp: Any) -> int | None:
        acknowledged = self._acked[tp]
        if not acknowledged:
            return None
        position: int = acknowledged[-1] + 1
        acknowledged.clear()
        return position

    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
        """Offsets that do not exist need no acknowledgement."""

    async def on_partitions_revoked(self, revoked: set[Any]) -> None:
        # Faust forgets here which offsets were acknowledged since the last commit.
        await self.commit_now()
        await super().on_partitions_revoked(revoked)

    async def commit_now(self) -> None:
        """Commit all that is acknowledged at this moment."""
        # A commit under way has already chosen its offsets, and `commit` would only wait for it.
        await self.maybe_wait_for_commit_to_finish()
        await self.commit()


class BlockTransport(AIOKafkaFaustTransport):
    """Kafka by aiokafka, with a `BlockConsumer`."""

    Consumer = BlockConsumer
