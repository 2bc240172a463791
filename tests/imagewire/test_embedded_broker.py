"""Both brokers of the embedded stack carry records; which one runs, and why, is always said."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from shared_broker import BOTH, SharedBroker, missing

from imagewire.embedded.broker import BrokerError, ExternalBroker
from imagewire.embedded.broker_choice import choose_broker
from imagewire.embedded.kafka import ApacheKafka
from imagewire.embedded.ports import free_port

BROKERS = BOTH

LARGE = 33 * 1024 * 1024


@pytest.fixture
def needs_apache() -> None:
    if reason := missing("apache"):
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


async def create_topic(address: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1)])
    finally:
        await admin.close()


async def produce(address: str, topic: str, *values: bytes, idempotent: bool = False) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=address, enable_idempotence=idempotent, max_request_size=LARGE + 1024
    ) as producer:
        for value in values:
            await producer.send_and_wait(topic, value)


async def consume(address: str, topic: str, count: int) -> list[bytes]:
    async with AIOKafkaConsumer(
        topic,
        bootstrap_servers=address,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=LARGE + 1024,
    ) as consumer:
        return [
            bytes((await asyncio.wait_for(consumer.getone(), 90)).value or b"")
            for _ in range(count)
        ]


async def test_an_image_of_33_mib_goes_through_whole(
    kafka_broker: SharedBroker, unique: Callable[[str], str]
) -> None:
    topic, image = unique("large"), os.urandom(LARGE)
    await create_topic(kafka_broker.address, topic)
    await produce(kafka_broker.address, topic, image)
    assert await consume(kafka_broker.address, topic, 1) == [image]


async def test_idempotent_producers_work_on_apache_kafka(
    apache_kafka: SharedBroker, unique: Callable[[str], str]
) -> None:
    assert apache_kafka.supports_idempotence
    topic = unique("idempotent")
    await create_topic(apache_kafka.address, topic)
    await produce(apache_kafka.address, topic, b"once", idempotent=True)
    assert await consume(apache_kafka.address, topic, 1) == [b"once"]


@pytest.mark.usefixtures("needs_apache")
async def test_apache_kafka_keeps_its_records_and_identity_through_kill_9(tmp_path: Path) -> None:
    broker = ApacheKafka(tmp_path / "kafka", port=free_port(), log_directory=tmp_path / "logs")
    meta = tmp_path / "kafka" / "log" / "meta.properties"
    try:
        await broker.start()
        cluster = meta.read_text()
        await create_topic(broker.address, "kept")
        await produce(broker.address, "kept", b"before", b"the", b"power cut")
        broker.kill()
        await broker.start()
        assert await consume(broker.address, "kept", 3) == [b"before", b"the", b"power cut"]
        assert [line for line in meta.read_text().splitlines() if "cluster.id" in line] == [
            line for line in cluster.splitlines() if "cluster.id" in line
        ]
    finally:
        await broker.stop()


async def test_tansu_starts_says_what_it_does_not_keep_and_stops(tmp_path: Path) -> None:
    choice = choose_broker("tansu", directory=tmp_path, log_directory=tmp_path / "logs")
    assert "memory only" in choice.reason
    assert not choice.broker.durable
    await choice.broker.start()
    assert choice.broker.process is not None
    assert choice.broker.process.running
    await choice.broker.stop()
    assert choice.broker.process.pid is None


def test_without_java_the_choice_is_tansu_and_the_reason_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    choice = choose_broker(None, directory=tmp_path, log_directory=tmp_path)
    assert choice.broker.name == "tansu"
    assert "needs Java 17" in choice.reason
    with pytest.raises(BrokerError, match="needs Java 17"):
        choose_broker("apache", directory=tmp_path, log_directory=tmp_path)


@pytest.mark.usefixtures("needs_apache")
def test_with_java_and_jars_the_choice_is_apache_kafka(tmp_path: Path) -> None:
    choice = choose_broker(None, directory=tmp_path, log_directory=tmp_path)
    assert choice.broker.name == "apache"
    assert choice.broker.durable
    assert "survive restarts" in choice.reason


def test_an_address_is_taken_as_somebody_elses_broker(tmp_path: Path) -> None:
    for address in ("kafka.example.org:9092", "[::1]:9092", "a:9092,b:9092"):
        broker = choose_broker(address, directory=tmp_path, log_directory=tmp_path).broker
        assert (broker.name, broker.address) == ("external", address)
        with pytest.raises(BrokerError, match="not ours to kill"):
            broker.kill()


def test_what_is_no_broker_is_refused_with_the_choices(tmp_path: Path) -> None:
    for wrong in ("kafka", "localhost", "localhost:port", "", "kafka://a:1"):
        with pytest.raises(BrokerError, match="apache, tansu, auto, HOST:PORT"):
            choose_broker(wrong, directory=tmp_path, log_directory=tmp_path)


async def test_an_address_where_nobody_answers_is_named(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(BrokerError, match=f"no Kafka broker answers at {address}"):
        await ExternalBroker(address, timeout=0.5).start()


async def test_several_bootstrap_addresses_are_tried_in_turn(kafka_broker: SharedBroker) -> None:
    await ExternalBroker(f"127.0.0.1:{free_port()},{kafka_broker.address}").start()
