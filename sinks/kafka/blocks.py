"""Records of a block of frames, gathered into one batch for each partition.

aiokafka makes futures and a copy of its bookkeeping for every record that is sent alone, some 40 µs
each, and an image has two or more. A batch made by hand costs that once, however many records it
holds, and leaves without lingering.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer, errors

from operators.frame import Frame
from sinks.kafka.partitioner import partition_of


class Record(NamedTuple):
    """One record to be produced, and the frame that it speaks of."""

    frame: Frame
    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]

    @property
    def doing(self) -> str:
        return f"writing image {self.frame.image_id} to topic {self.topic}"


Failed = list[tuple[Record, BaseException]]
"""Records that were not written, and why."""


class _Batch(NamedTuple):
    builder: Any
    records: list[Record]


async def send_in_batches(producer: AIOKafkaProducer, records: Sequence[Record]) -> Failed:
    """Send `records`, which all have a key, and await every acknowledgement.

    Records of one key keep their order. What a broker or aiokafka cannot take in a batch is to be
    tried again by itself: its error is one of `sinks.kafka.errors.TOO_LARGE`.
    """
    topics = {record.topic for record in records}
    failed: Failed = []
    partitions: dict[str, list[int]] = {}
    for topic in topics:
        try:
            partitions[topic] = sorted(await producer.partitions_for(topic))
        except (errors.KafkaError, OSError) as error:
            failed += [(record, error) for record in records if record.topic == topic]
    waiting: list[tuple[_Batch, asyncio.Future[Any]]] = []
    open_batches: dict[tuple[str, int], _Batch] = {}
    for record in records:
        if record.topic not in partitions:
            continue
        place = record.topic, partition_of(record.key or b"", partitions[record.topic])
        batch = open_batches.get(place)
        if batch is not None and not _append(batch, record):
            await _send(producer, batch, place, waiting, failed)
            batch = None
        if batch is None:
            batch = open_batches[place] = _Batch(producer.create_batch(), [])
            _append(batch, record)
    for place, batch in open_batches.items():
        await _send(producer, batch, place, waiting, failed)
    results = await asyncio.gather(*(future for _, future in waiting), return_exceptions=True)
    for (batch, _), result in zip(waiting, results, strict=True):
        if isinstance(result, BaseException):
            failed += [(record, result) for record in batch.records]
    return failed


def _append(batch: _Batch, record: Record) -> bool:
    """Whether there was room; the first record of a batch always finds it."""
    added = batch.builder.append(
        timestamp=None, key=record.key, value=record.value, headers=record.headers
    )
    if added is not None:
        batch.records.append(record)
    return added is not None


async def _send(
    producer: AIOKafkaProducer,
    batch: _Batch,
    place: tuple[str, int],
    waiting: list[tuple[_Batch, asyncio.Future[Any]]],
    failed: Failed,
) -> None:
    batch.builder.close()
    topic, partition = place
    try:
        future = await producer.send_batch(batch.builder, topic, partition=partition)
    except (errors.KafkaError, OSError) as error:
        failed += [(record, error) for record in batch.records]
    else:
        waiting.append((batch, future))
