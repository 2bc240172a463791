"""Single records of Kafka by their place: the bytes of images that were published inline."""

from __future__ import annotations

import asyncio
import logging

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from sinks.kafka.reachable import connection_error
from sinks.kafka.settings import KafkaSettings
from sinks.sink import TransientSinkError

logger = logging.getLogger(__name__)

_READERS = 3
_PATIENCE_SECONDS = 8.0
_FAREWELL_SECONDS = 1.0


class RecordGoneError(LookupError):
    """Kafka no longer has the record, or never had it."""


class KafkaRecords:
    """Reads records by topic, partition and offset; some at a time, over connections that stay."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._free: list[AIOKafkaConsumer] = []
        self._slots = asyncio.Semaphore(_READERS)

    async def read(self, topic: str, partition: int, offset: int) -> ConsumerRecord:
        """The record at that place.

        Raises:
            RecordGoneError: it is not there, any more.
            TransientSinkError: the broker does not answer.
        """
        async with self._slots:
            consumer = self._free.pop() if self._free else await self._connected()
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    record = await _read(consumer, TopicPartition(topic, partition), offset)
            except TimeoutError as error:
                await _stopped(consumer)
                raise TransientSinkError(
                    f"Kafka did not answer within {_PATIENCE_SECONDS:g} s for one record"
                ) from error
            except KafkaError as error:
                await _stopped(consumer)
                raise TransientSinkError(f"Kafka does not give a record: {error!r}") from error
            except BaseException:
                # Whoever asked is gone: what is still under way would mix with the next question.
                await _stopped(consumer)
                raise
            self._free.append(consumer)
        if record is None:
            raise RecordGoneError(f"{topic}/{partition}/{offset} is no longer on Kafka")
        return record

    async def close(self) -> None:
        """Close the connections."""
        while self._free:
            await _stopped(self._free.pop())

    async def _connected(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            fetch_max_wait_ms=100,
            **self._settings.client_options(),
        )
        try:
            await consumer.start()
        except (KafkaError, OSError) as error:
            await consumer.stop()
            where = f"no broker answers at {self._settings.bootstrap_servers}"
            raise await connection_error(self._settings, error, where) from error
        return consumer


async def _read(
    consumer: AIOKafkaConsumer, place: TopicPartition, offset: int
) -> ConsumerRecord | None:
    partitions = consumer.partitions_for_topic(place.topic)
    if partitions is None:
        # aiokafka offers no other way
        await consumer._client.force_metadata_update()
        partitions = consumer.partitions_for_topic(place.topic)
    if not partitions or place.partition not in partitions:
        return None
    consumer.assign([place])
    try:
        # Seeking outside what is there hangs on some brokers.
        first = (await consumer.beginning_offsets([place]))[place]
        if offset < first:
            return None
        consumer.seek(place, offset)
        while True:
            batches = await consumer.getmany(place, timeout_ms=200, max_records=1)
            for record in batches.get(place, ()):
                return record if record.offset == offset else None
            # What is not there yet would be waited for until somebody publishes it.
            highwater = consumer.highwater(place)
            if highwater is not None and offset >= highwater:
                return None
    finally:
        consumer.assign([])


async def _stopped(consumer: AIOKafkaConsumer) -> None:
    """Stop the consumer. Its fetching at times passes over that it is cancelled, and stopping then
    waits for ever; a second cancellation ends both."""
    try:
        async with asyncio.timeout(_FAREWELL_SECONDS):
            await consumer.stop()
    except (TimeoutError, KafkaError, OSError) as error:
        logger.debug("a consumer did not stop by itself: %r", error)
