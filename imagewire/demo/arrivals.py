"""What came back from Kafka: verdicts, findings and dead letters, by image id."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from types import TracebackType
from typing import Any, Self

import msgspec
from aiokafka import AIOKafkaConsumer

from imagewire.demo.outcome import DeadLetter
from imagewire.publishing import Published
from operators.findings import Findings
from sinks.kafka.records import DeadLetterHeader
from sinks.kafka.settings import KafkaSettings


class Arrivals:
    """Reads the three output topics from their beginning. Use as an async context manager.

    Attributes:
        findings: by image id.
        dead_letters: by image id.
        verdicts: how many verdict records each image id got.
        last_timestamp_ms: the latest Kafka timestamp of any record.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self.findings: dict[str, Findings] = {}
        self.dead_letters: dict[str, DeadLetter] = {}
        self.verdicts: Counter[str] = Counter()
        self.last_timestamp_ms = 0
        self._verdict_times: dict[str, int] = {}
        self._arrived = asyncio.Event()

    async def __aenter__(self) -> Self:
        topics = self._settings.topics
        self._consumer = AIOKafkaConsumer(
            topics.verdicts,
            topics.findings,
            topics.failed,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=50,
            **self._settings.client_options(),
        )
        await self._consumer.start()
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading
        await self._consumer.stop()

    def settled(self) -> set[str]:
        """Ids of images that have both verdict and findings, or a dead letter."""
        return (self.findings.keys() & self.verdicts.keys()) | self.dead_letters.keys()

    def latency_ms(self, published: Published) -> float | None:
        """From the image's Kafka timestamp to that of its verdict; `None` without a verdict."""
        at = self._verdict_times.get(published.image_id)
        return None if at is None else float(at - published.timestamp_ms)

    async def next(self, within: float) -> None:
        """Wait for further records, at most `within` seconds.

        Raises:
            Exception: reading failed.
        """
        self._arrived.clear()
        waiting = asyncio.create_task(self._arrived.wait())
        await asyncio.wait(
            [waiting, self._reading], timeout=within, return_when=asyncio.FIRST_COMPLETED
        )
        waiting.cancel()
        if self._reading.done():
            self._reading.result()

    async def _read(self) -> None:
        async for record in self._consumer:
            self._take(record)
            self._arrived.set()

    def _take(self, record: Any) -> None:
        topics = self._settings.topics
        self.last_timestamp_ms = max(self.last_timestamp_ms, record.timestamp)
        if record.topic == topics.failed:
            headers = {name: value.decode() for name, value in record.headers}
            name = headers[DeadLetterHeader.IMAGE_ID]
            self.dead_letters[name] = DeadLetter(
                name,
                headers[DeadLetterHeader.STAGE],
                headers[DeadLetterHeader.REASON],
                headers[DeadLetterHeader.DETAIL],
            )
            return
        fields = msgspec.json.decode(record.value)
        name = fields["image_id"]
        if record.topic == topics.verdicts:
            self.verdicts[name] += 1
            self._verdict_times.setdefault(name, record.timestamp)
        else:
            # A findings record holds the fields of `Findings` beside the image's own.
            self.findings[name] = msgspec.convert(fields, Findings)
