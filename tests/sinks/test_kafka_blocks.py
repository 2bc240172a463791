"""Promises of records that are sent many at a time: their partitions, their order, all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.partitioner import murmur2 as byte_by_byte
from hypothesis import given
from hypothesis import strategies as st
from shared_broker import BOTH, SharedBroker

from operators.findings import Findings, Verdict
from operators.frame import Frame, Origin
from sinks.kafka import KafkaSettings, KafkaSink, TopicNames, ensure_topics
from sinks.kafka.partitioner import murmur2

BROKERS = BOTH


@given(st.binary(max_size=70))
def test_keys_are_hashed_as_other_kafka_clients_do(key: bytes) -> None:
    assert murmur2(key) == byte_by_byte(key)


def test_known_hashes_of_kafkas_own_tests() -> None:
    # org.apache.kafka.common.utils.UtilsTest.testMurmur2, as unsigned numbers
    known = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }
    assert {key: murmur2(key) for key in known} == {
        key: value & 0xFFFF_FFFF for key, value in known.items()
    }


def frame(number: int, image: int, metadata_bytes: int = 0) -> Frame:
    return Frame(
        image_id=f"image-{image}",
        feed="gate",
        event_time_ms=1_767_225_600_000,
        origin=Origin("images", 0, number, 1_767_225_600_000),
        metadata={"number": number, "filling": "x" * metadata_bytes},
        findings=Findings(verdict=Verdict("allow", "test-1")),
    )


@pytest.mark.kafka
async def test_a_block_larger_than_a_batch_arrives_whole_in_order_and_on_the_keys_partitions(
    kafka_broker: SharedBroker, unique: Callable[[str], str]
) -> None:
    names = {name: f"{unique('blocks')}.{name}" for name in TopicNames.model_fields}
    settings = KafkaSettings(
        bootstrap_servers=kafka_broker.address, topics=TopicNames(**names), partitions=3
    )
    await ensure_topics(settings)
    # 1200 records of 2 kB are several batches a partition; each image comes four times.
    frames = [frame(number, number % 300, 2_000) for number in range(1_200)]
    frames.insert(600, frame(5_000, 7, 300_000))  # larger than a batch, for itself
    sink = KafkaSink(settings)
    await sink.open()
    try:
        await sink.write(frames)
    finally:
        await sink.close()
    topic = settings.topics.findings
    partitions = [TopicPartition(topic, number) for number in range(3)]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka_broker.address, max_partition_fetch_bytes=2**22
    )
    producer = AIOKafkaProducer(bootstrap_servers=kafka_broker.address)
    await consumer.start()
    await producer.start()
    try:
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        found = defaultdict(list)
        while sum(map(len, found.values())) < len(frames):
            polled = await consumer.getmany(timeout_ms=60_000)
            assert polled, f"only {sum(map(len, found.values()))} records of {len(frames)} came"
            for partition, records in polled.items():
                for record in records:
                    number = int(dict(record.headers)["source-offset"])
                    found[record.key].append((number, partition.partition))
        await producer.partitions_for(topic)
        for key, places in found.items():
            expected = producer._partition(topic, None, None, None, key, None)
            assert {partition for _, partition in places} == {expected}
            numbers = [number for number, _ in places if number != 5_000]
            assert numbers == sorted(numbers)
        assert sum(map(len, found.values())) == len(frames)
    finally:
        await producer.stop()
        await consumer.stop()
