"""Reads what stands on partitions of a topic, up to an end, outside any consumer group."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from sinks.sink import TransientSinkError

_SILENCE_SECONDS = 20.0
"""For how long a broker may give nothing new before reading is given up."""


async def read_up_to(
    consumer: AIOKafkaConsumer,
    partitions: Collection[TopicPartition],
    ends: dict[TopicPartition, int],
    *,
    broker: str,
    most: int,
) -> AsyncIterator[tuple[TopicPartition, list[ConsumerRecord]]]:
    """The records from where the consumer stands, partition by partition; those beyond the end may
    come with the last of them.

    Args:
        partitions: assigned to the consumer.
        ends: offset behind the last record of a partition. One that is missing is filled in with
            the partition's high watermark at the first fetch: tansu's answer to `end_offsets` is
            wrong for batches of several records.
        broker: where it is, for messages.
        most: records in one step.

    Raises:
        TransientSinkError: the broker stopped answering.
    """
    left = sorted(partitions)
    last_news = time.monotonic()
    while left:
        try:
            batches = await consumer.getmany(*left, timeout_ms=100, max_records=most)
        except (KafkaError, OSError) as error:
            raise TransientSinkError(f"reading from {broker} failed: {error!r}") from error
        for partition in left:
            highwater = consumer.highwater(partition)
            if partition not in ends and highwater is not None:
                ends[partition] = highwater
                last_news = time.monotonic()
        for partition, records in batches.items():
            last_news = time.monotonic()
            yield partition, records
        left = [
            partition
            for partition in left
            if partition not in ends or await consumer.position(partition) < ends[partition]
        ]
        if time.monotonic() - last_news > _SILENCE_SECONDS:
            topics = ", ".join(sorted({partition.topic for partition in left}))
            raise TransientSinkError(
                f"{broker} has not answered for {_SILENCE_SECONDS:.0f} s while {topics} was read; "
                "try again"
            )
