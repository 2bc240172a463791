"""A worker that cannot take images says so, although no write of its own fails."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from faulty_parts import until
from shared_broker import SharedBroker
from stream_worker import StreamWorker, kafka_settings, running

from imagewire.embedded.ports import free_port
from imagewire.embedded.tansu import Tansu
from sinks.kafka.topics import ensure_topics
from streams.intake import GRACE_SECONDS, Intake


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_missing_coordinator_is_told_once_and_so_is_its_return(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    intake = Intake("kafka:9092", clock)
    with caplog.at_level(logging.WARNING):
        for second in range(60):
            clock.now = second
            intake.look(coordinated=False, partitions={"images": 4})
            assert (intake.hindrance is None) == (second < GRACE_SECONDS)
        assert "no broker at kafka:9092 answers" in str(intake.hindrance)
        intake.look(coordinated=True, partitions={"images": 4})
    assert intake.hindrance is None
    first, second_message = caplog.messages
    assert first.startswith("no image is taken: no broker at kafka:9092")
    assert second_message == "images are taken again after 56 s"


def test_a_group_that_changes_its_coordinator_is_no_news() -> None:
    clock = Clock()
    intake = Intake("kafka:9092", clock)
    for second in range(30):
        clock.now = second
        intake.look(coordinated=second % 2 == 0, partitions={"images": 4})
        assert intake.hindrance is None


def test_the_topic_that_is_gone_is_named() -> None:
    intake = Intake("kafka:9092", Clock())
    intake.look(coordinated=True, partitions={"images": 0, "images.bulk": 4})
    assert "from images: there is no such topic any more; create it again" in str(intake.hindrance)
    intake.look(coordinated=True, partitions={"images": 4, "images.bulk": 4})
    assert intake.hindrance is None


@asynccontextmanager
async def administration(address: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=address)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def publish(
    address: str, topic: str, values: list[bytes], partitions: tuple[int, ...] = (0, 1)
) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=address)
    await producer.start()
    try:
        for number, value in enumerate(values):
            await producer.send_and_wait(
                topic, value, partition=partitions[number % len(partitions)]
            )
    finally:
        await producer.stop()


async def test_a_topic_that_is_deleted_is_missed_and_taken_from_again_when_it_is_back(
    apache_kafka: SharedBroker, unique: Callable[[str], str]
) -> None:
    prefix = unique("deleted")
    kafka = kafka_settings(apache_kafka.address, prefix)
    await ensure_topics(kafka)
    images = kafka.topics.images
    worker = StreamWorker(kafka, f"{prefix}.group")
    # Half a minute in service.
    worker.stream.app.conf.consumer_metadata_max_age_ms = 1000
    async with running(worker), administration(apache_kafka.address) as admin:
        await publish(apache_kafka.address, images, [b"\xff\xd8\xff before"] * 6)
        await until(lambda: len(worker.acknowledged) == 6, 90)
        before = len(worker.acknowledged)
        await admin.delete_topics([images])
        await until(lambda: images in str(worker.stream.hindrance), 90)
        await admin.create_topics([NewTopic(images, 2, 1)])
        await publish(apache_kafka.address, images, [b"\xff\xd8\xff after"] * 4)
        await until(lambda: len(set(worker.acknowledged[before:])) == 4, 90)
        await until(lambda: worker.stream.hindrance is None, 90)
        assert sorted(set(worker.acknowledged[before:])) == [
            (images, partition, offset) for partition in (0, 1) for offset in (0, 1)
        ]


async def test_partitions_that_are_added_are_taken_from_their_beginning(
    apache_kafka: SharedBroker, unique: Callable[[str], str]
) -> None:
    prefix = unique("grown")
    kafka = kafka_settings(apache_kafka.address, prefix)
    await ensure_topics(kafka)
    images = kafka.topics.images
    worker = StreamWorker(kafka, f"{prefix}.group")
    # Half a minute in service.
    worker.stream.app.conf.consumer_metadata_max_age_ms = 1000
    async with running(worker), administration(apache_kafka.address) as admin:
        await publish(apache_kafka.address, images, [b"\xff\xd8\xff before"] * 4)
        await until(lambda: len(worker.acknowledged) == 4, 90)
        await admin.create_partitions({images: NewPartitions(4)})
        await publish(apache_kafka.address, images, [b"\xff\xd8\xff after"] * 8, (0, 1, 2, 3))
        await until(lambda: len(set(worker.acknowledged)) == 12, 90)
        assert sorted(set(worker.acknowledged)) == [
            (images, partition, offset)
            for partition, offsets in ((0, 4), (1, 4), (2, 2), (3, 2))
            for offset in range(offsets)
        ]


async def test_a_worker_whose_broker_is_gone_stops_without_waiting_for_it(tmp_path: Path) -> None:
    broker = Tansu(port=free_port(), log_directory=tmp_path)
    await broker.start()
    kafka = kafka_settings(broker.address, "gone")
    await ensure_topics(kafka)
    worker = StreamWorker(kafka, "gone.group")
    async with running(worker):
        await publish(broker.address, kafka.topics.images, [b"\xff\xd8\xff here"] * 4)
        await until(lambda: len(worker.acknowledged) == 4, 90)
        await broker.stop()
        await until(lambda: worker.stream.hindrance is not None, 90)
        asked = time.monotonic()
    # Faust waits for a minute for a consumer that does not say that it has ended.
    assert time.monotonic() - asked < 45
