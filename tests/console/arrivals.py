"""Verdicts that arrive while the console is looked at, published as a worker publishes them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import msgspec
from aiokafka import AIOKafkaProducer

from operators.findings import Action, RuleHit
from sinks.kafka.records import VerdictRecord
from sinks.kafka.settings import KafkaSettings


def verdict(image_id: str, action: Action = "allow", feed: str = "gate-3") -> VerdictRecord:
    """A verdict of now."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    rules = [] if action == "allow" else [RuleHit(f"to-{action}", action, "as the test wants it")]
    return VerdictRecord(
        image_id=image_id,
        content_id=None,
        feed=feed,
        event_time=now,
        uri=None,
        action=action,
        rules=rules,
        policy="house-rules-1a2b3c4d5e6f",
    )


def publish(kafka: KafkaSettings, records: Iterable[VerdictRecord]) -> None:
    """Publish `records`. In a thread: Playwright keeps an event loop running in the tests' own."""

    async def send() -> None:
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
            for record in records:
                key = record.image_id.encode()
                await producer.send(kafka.topics.verdicts, msgspec.json.encode(record), key=key)
            await producer.flush()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, send()).result(60)
