"""How far the workers are behind: records that they have not acknowledged, by Kafka's own offsets.

Asked of Kafka and not of the workers, so that it is known also when none of them works.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from imagewire.settings import Settings

logger = logging.getLogger(__name__)

_FRESH_SECONDS = 2.0
_AFTER_ERROR_SECONDS = 10.0
_LOOK_SECONDS = 5.0
_NEWS_SECONDS = 0.3
"""A fetch that finds a record is answered at once; after so long there is none."""


@dataclass(frozen=True, slots=True)
class Lag:
    """Records that wait, and for how many seconds the oldest has."""

    records: int
    seconds: float


class KafkaLag:
    """Looks at the committed offsets of the workers' group when asked, not more often than every
    two seconds, without joining the group."""

    def __init__(self, settings: Settings) -> None:
        self._kafka = settings.kafka
        self._group = settings.stream.group
        self._consumer: AIOKafkaConsumer | None = None
        self._turn = asyncio.Lock()
        self._known: Lag | None = None
        self._until = 0.0

    async def now(self) -> Lag | None:
        """The lag; `None` while Kafka does not answer."""
        async with self._turn:
            if time.monotonic() < self._until:
                return self._known
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    self._known = await self._look()
                self._until = time.monotonic() + _FRESH_SECONDS
            except (KafkaError, OSError, TimeoutError) as error:
                logger.warning("the lag of group %s is not known: %r", self._group, error)
                self._known = None
                self._until = time.monotonic() + _AFTER_ERROR_SECONDS
                await self._let_go()
            return self._known

    async def close(self) -> None:
        """Let go of the connection."""
        async with self._turn:
            await self._let_go()

    async def _look(self) -> Lag:
        consumer = self._consumer or await self._open()
        # aiokafka's own list of partitions is of topics that were asked for before.
        known = await consumer._client.fetch_all_metadata()
        partitions = [
            TopicPartition(topic, number)
            for topic in (self._kafka.topics.images, self._kafka.topics.bulk)
            for number in sorted(known.partitions_for_topic(topic) or ())
        ]
        if set(partitions) != consumer.assignment():
            consumer.assign(partitions)
        committed = dict(
            zip(partitions, await asyncio.gather(*map(consumer.committed, partitions)), strict=True)
        )
        for partition, offset in committed.items():
            if offset is None:
                await consumer.seek_to_beginning(partition)
            else:
                consumer.seek(partition, offset)
        oldest: dict[TopicPartition, int] = {}
        waiting: dict[TopicPartition, int] = {}
        ends = time.monotonic() + _NEWS_SECONDS
        while partitions and (left := ends - time.monotonic()) > 0:
            batches = await consumer.getmany(
                *(each for each in partitions if each not in oldest),
                timeout_ms=int(left * 1000) + 1,
                max_records=1,
            )
            for partition, [first, *_] in batches.items():
                oldest[partition] = first.timestamp
                waiting[partition] = max(consumer.highwater(partition) - first.offset, 1)
            if len(oldest) == len(partitions):
                break
        now = time.time()
        ages = (now - stamp / 1000 for stamp in oldest.values())
        return Lag(sum(waiting.values()), round(max((0.0, *ages)), 3))

    async def _open(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
            # The first record of each partition is enough, and it may be a picture.
            max_partition_fetch_bytes=1024,
            **self._kafka.client_options(),
        )
        try:
            await consumer.start()
        except BaseException:
            await consumer.stop()
            raise
        self._consumer = consumer
        return consumer

    async def _let_go(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()
