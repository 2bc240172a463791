"""Everything that stands on a topic, read to the end that the broker names.

To read until nothing comes for a while is to lose records on a machine that is busy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition


async def everything_on(
    options: Mapping[str, Any], topic: str, partitions: int
) -> list[ConsumerRecord]:
    """The records of a topic as it is now, each partition in its order.

    Args:
        options: of an aiokafka client: where the brokers are and how to log in.
    """
    consumer = AIOKafkaConsumer(
        enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=50, **options
    )
    await consumer.start()
    try:
        places = [TopicPartition(topic, number) for number in range(partitions)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        found: list[ConsumerRecord] = []
        quiet = 0
        # High-water marks come with fetches, and not every broker tells them when it is asked; two
        # quiet rounds after that, nothing is left.
        while quiet < 2:
            batches = await consumer.getmany(timeout_ms=100)
            behind = False
            for place in places:
                mark = consumer.highwater(place)
                behind |= mark is None or await consumer.position(place) < mark
            quiet = 0 if batches or behind else quiet + 1
            for records in batches.values():
                found.extend(records)
        return found
    finally:
        await consumer.stop()
