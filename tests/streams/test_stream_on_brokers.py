"""Promises of the stream on real brokers: every record, in its order, committed when it is safe."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from faulty_parts import until
from shared_broker import BOTH, SharedBroker
from stream_worker import StreamWorker, kafka_settings, running

from operators.frame import Frame, Lane
from sinks.kafka.settings import KafkaSettings
from sinks.kafka.topics import ensure_topics

BROKERS = BOTH
pytestmark = pytest.mark.kafka
PARTITIONS = 2


class Topics:
    """Topics of this test's own on one of the brokers."""

    def __init__(self, address: str, prefix: str) -> None:
        self.address, self.prefix, self.group = address, prefix, f"{prefix}.group"
        self.kafka: KafkaSettings = kafka_settings(address, prefix, PARTITIONS)
        self.images, self.bulk = self.kafka.topics.images, self.kafka.topics.bulk

    def worker(self, **settings: Any) -> StreamWorker:
        return StreamWorker(self.kafka, self.group, **settings)

    async def publish(
        self,
        values: Sequence[bytes | None],
        topic: str | None = None,
        partition: int | None = None,
        **options: Any,
    ) -> None:
        """Spread over the partitions in turn, unless one is named."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.address, max_request_size=16 * 1024 * 1024
        )
        await producer.start()
        try:
            for number, value in enumerate(values):
                await producer.send(
                    topic or self.images,
                    value,
                    partition=number % PARTITIONS if partition is None else partition,
                    **options,
                )
            await producer.flush()
        finally:
            await producer.stop()

    async def committed(self) -> dict[tuple[str, int], int]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.address, group_id=self.group, enable_auto_commit=False
        )
        await consumer.start()
        try:
            found = {}
            for topic in (self.images, self.bulk):
                for partition in range(PARTITIONS):
                    offset = await consumer.committed(TopicPartition(topic, partition))
                    if offset:
                        found[(topic, partition)] = offset
            return found
        finally:
            await consumer.stop()


@pytest.fixture
async def topics(kafka_broker: SharedBroker, unique: Callable[[str], str]) -> AsyncIterator[Topics]:
    topics = Topics(kafka_broker.address, unique("stream"))
    await ensure_topics(topics.kafka)
    yield topics


def inline(count: int) -> list[bytes]:
    return [b"\xff\xd8\xff image %d" % number for number in range(count)]


async def test_every_record_is_written_and_what_is_acknowledged_is_committed(
    topics: Topics,
) -> None:
    await topics.publish(inline(60))
    await topics.publish(inline(10), topic=topics.bulk)
    async with running(topics.worker()) as worker:
        await until(lambda: len(worker.sink.findings) == 70, 90)
        lanes = {(origin.topic, lane) for origin, lane in worker.taken}
        assert lanes == {(topics.images, Lane.LIVE), (topics.bulk, Lane.BULK)}
        await until(lambda: len(worker.acknowledged) == 70)
        lag = worker.stream.lag(worker.pipeline.ledger.positions())
        assert lag == {(t, p): 0 for t in (topics.images, topics.bulk) for p in range(PARTITIONS)}
    assert await topics.committed() == {
        (topics.images, 0): 30,
        (topics.images, 1): 30,
        (topics.bulk, 0): 5,
        (topics.bulk, 1): 5,
    }
    for topic, partition in await topics.committed():
        order = [o for t, p, o in worker.acknowledged if (t, p) == (topic, partition)]
        assert order == list(range(len(order)))


async def test_while_there_is_work_ahead_records_are_fetched_seldom_and_many_at_once(
    topics: Topics,
) -> None:
    async with running(topics.worker()) as worker:
        await topics.publish(inline(1), partition=0)
        await until(lambda: len(worker.taken) == 1, 90)
        worker.ahead = 10.0
        began = time.monotonic()
        async with AIOKafkaProducer(bootstrap_servers=topics.address) as producer:
            for image in inline(60):
                await producer.send_and_wait(topics.images, image, partition=0)
                await asyncio.sleep(0.01)
        await until(lambda: len(worker.acknowledged) == 61)
        seconds = time.monotonic() - began
    # A tenth of a second from one fetch to the next, but for one that was under way already.
    assert len(worker.blocks) <= seconds / 0.1 + 2


async def test_records_of_any_shape_pass(topics: Topics) -> None:
    large = b"\xff\xd8\xff" + os.urandom(5_000_000)
    await topics.publish([None], partition=0, key=b"key")  # without either it is no record
    await topics.publish([b"", b"no record", large], partition=0, key=None)
    headers = [("feed", b"door"), ("x", b""), ("empty", None), ("x", b"\xff\xfe")]
    await topics.publish(inline(1), partition=0, key=b"\x00\xff", headers=headers)
    async with running(topics.worker()) as worker:
        await until(lambda: len(worker.acknowledged) == 5, 90)
        origins = [origin for origin, _ in worker.taken]
        assert [origin.value for origin in origins] == [None, b"", b"no record", large, *inline(1)]
        assert origins[4].key == b"\x00\xff"
        assert [(n, v or b"") for n, v in origins[4].headers] == [
            (name, value or b"") for name, value in headers
        ]
        assert abs(origins[0].timestamp_ms / 1000 - time.time()) < 60
        assert len(worker.sink.findings) == 2
        assert len(worker.sink.failures) == 3
    assert await topics.committed() == {(topics.images, 0): 5}


async def test_nothing_is_committed_past_a_record_that_is_not_safe(topics: Topics) -> None:
    values = [json.dumps({"uri": "slow:x"}).encode(), *inline(20)]
    await topics.publish(values, partition=0)
    async with running(topics.worker(drain_timeout=0.2)) as worker:
        await until(lambda: len(worker.sink.findings) == 20, 90)
        await asyncio.sleep(0.5)
        assert await topics.committed() == {}
    assert await topics.committed() == {}
    async with running(topics.worker()) as worker:
        await until(lambda: len(worker.sink.findings) == 20, 90)
        worker.fetcher.release.set()
        await until(lambda: len(worker.acknowledged) == 21)
    assert await topics.committed() == {(topics.images, 0): 21}


async def test_records_that_a_killed_worker_had_not_finished_are_delivered_again(
    topics: Topics,
) -> None:
    await topics.publish([*inline(10), b"stuck", *inline(5)], partition=0)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("stream_worker.py")
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        topics.address,
        topics.prefix,
        topics.group,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    try:
        assert child.stdout is not None
        async with asyncio.timeout(120):
            for _ in range(16):
                assert (await child.stdout.readline()).startswith(b"taken")
            await asyncio.sleep(0.6)  # for a commit
    finally:
        child.send_signal(signal.SIGKILL)
        await child.wait()
    async with running(topics.worker()) as worker:
        # How far the first one had committed is its own affair; nothing that it left is missing.
        unfinished = set(range(10, 16))
        await until(lambda: unfinished <= {o for _, _, o in worker.acknowledged}, 90)
        again = [origin.offset for origin, _ in worker.taken]
        assert again == sorted(again)
    assert await topics.committed() == {(topics.images, 0): 16}


async def test_a_worker_that_joins_takes_over_partitions_and_no_record_is_lost_or_doubled(
    topics: Topics,
) -> None:
    first, second = topics.worker(), topics.worker()
    async with running(first):
        await topics.publish(inline(20))
        await until(lambda: len(first.acknowledged) == 20, 90)
        async with running(second):
            published = 20
            async with asyncio.timeout(90):
                while not second.acknowledged:
                    await topics.publish(inline(20))
                    published += 20
                    await asyncio.sleep(0.1)
            done = first.acknowledged, second.acknowledged
            await until(lambda: len(set(done[0] + done[1])) == published, 90)
            assert len(done[0]) + len(done[1]) == published
        await topics.publish(inline(20))
        published += 20
        await until(lambda: len(set(done[0] + done[1])) == published, 90)
        assert len(done[0]) + len(done[1]) == published
    committed = await topics.committed()
    assert sum(committed.values()) == published


async def test_a_rebalance_lets_go_of_what_does_not_finish_in_time_and_takes_it_up_again(
    topics: Topics,
) -> None:
    first, second = (topics.worker(drain_timeout=0.5, max_in_flight=8) for _ in range(2))
    async with running(first):
        first.sink.stall()
        await topics.publish(inline(60))
        await until(lambda: first.pipeline.ledger.in_flight == 8, 90)
        async with running(second):
            await until(lambda: second.taken, 90)
            first.sink.resume()
            done = first.acknowledged, second.acknowledged
            await until(lambda: len(set(done[0] + done[1])) == 60, 90)
    for worker in (first, second):
        for partition in range(PARTITIONS):
            order = [offset for _, p, offset in worker.acknowledged if p == partition]
            assert order == sorted(order)
    assert await topics.committed() == {(topics.images, 0): 30, (topics.images, 1): 30}


async def test_a_stalled_sink_leaves_the_records_on_the_broker(topics: Topics) -> None:
    async with running(topics.worker(max_in_flight=10)) as worker:
        worker.sink.stall()
        await topics.publish(inline(500))
        await until(lambda: len(worker.taken) == 11, 90)
        await asyncio.sleep(0.5)
        assert worker.pipeline.ledger.in_flight == 10
        assert len(worker.taken) == 11
        worker.sink.resume()
        await until(lambda: len(worker.acknowledged) == 500, 90)
        assert [len(set(worker.acknowledged)), len(worker.sink.findings)] == [500, 500]


async def test_a_handler_that_raises_ends_the_stream_and_loses_nothing(topics: Topics) -> None:
    worker = topics.worker()

    async def broken(frame: Frame, acknowledge: Callable[[], object]) -> None:
        raise LookupError("a defect")

    worker.pipeline.submit = broken  # type: ignore[method-assign]
    await topics.publish(inline(1))
    await worker.stream.start()
    try:
        with pytest.raises(LookupError, match="a defect"):
            await asyncio.wait_for(worker.stream.watch(), 90)
    finally:
        await worker.stream.stop()
    assert await topics.committed() == {}
