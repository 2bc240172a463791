"""Reads a compacted topic into memory, from its beginning and then for as long as a worker lives.

Such a topic holds the last record of every key, and every worker needs all of them before it takes
its first image; so it is read outside any consumer group, and `ready` says when everything that
stood there at the start has been taken in. A broker that is away is asked again until it answers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from sinks.kafka.settings import KafkaSettings

logger = logging.getLogger(__name__)

_TURN_SECONDS = 0.002
"""For which records are taken in before others on the event loop have their turn."""
_PAUSE_SECONDS = 1.0


class CompactedTopic:
    """One reader of one topic.

    Args:
        settings: where Kafka is.
        topic: its name.
        apply: takes in a record's key and value; must not raise. `None` as the value says that the
            key is no more. Records may come again after a lost connection.
        wait_ms: how long a broker may hold a fetch when there is nothing new; news come at once.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str,
        apply: Callable[[bytes | None, bytes | None], object],
        wait_ms: int = 500,
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._apply = apply
        self._wait_ms = wait_ms
        self._ready = asyncio.Event()
        self._positions: dict[TopicPartition, int] = {}
        self.trouble: str | None = None

    async def ready(self) -> None:
        """Wait until all that stood on the topic at the start has been taken in."""
        await self._ready.wait()

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            try:
                await self._read()
            except (KafkaError, OSError) as error:
                self._say(f"topic {self._topic} cannot be read: {error!r}")
            except Exception as error:
                logger.exception("reading topic %s failed unexpectedly", self._topic)
                self._say(f"topic {self._topic} cannot be read: {error!r}")
            await asyncio.sleep(_PAUSE_SECONDS)

    def _say(self, trouble: str) -> None:
        if self.trouble is None:
            logger.warning("%s; trying again until it can be", trouble)
        self.trouble = trouble

    async def _read(self) -> None:
        consumer = AIOKafkaConsumer(
            self._topic,
            group_id=None,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            fetch_max_wait_ms=self._wait_ms,
            metadata_max_age_ms=30_000,
            **self._settings.client_options(),
        )
        try:
            await consumer.start()
            for partition, offset in self._positions.items():
                if partition in consumer.assignment():
                    consumer.seek(partition, offset)
            while True:
                batches = await consumer.getmany(timeout_ms=200)
                turn_ends = time.perf_counter() + _TURN_SECONDS
                for partition, records in batches.items():
                    for record in records:
                        self._apply(record.key, record.value)
                        self._positions[partition] = record.offset + 1
                        if time.perf_counter() > turn_ends:
                            await asyncio.sleep(0)
                            turn_ends = time.perf_counter() + _TURN_SECONDS
                if not self._ready.is_set() and await self._is_at_end(consumer):
                    self._ready.set()
                if batches or self._ready.is_set():
                    if self.trouble is not None:
                        logger.warning("topic %s can be read again", self._topic)
                    self.trouble = None
        finally:
            await consumer.stop()

    async def _is_at_end(self, consumer: AIOKafkaConsumer) -> bool:
        """By the high watermarks of fetches: tansu's answer to `end_offsets` is wrong for batches
        of several records. A partition without one has not been fetched from yet."""
        partitions = consumer.assignment()
        if not partitions:
            return False
        for partition in partitions:
            highwater = consumer.highwater(partition)
            if highwater is None or await consumer.position(partition) < highwater:
                return False
        return True
