"""What became of an image that was just published: its findings, or why it failed.

Read from the topics that the worker writes to anyway, by the place of the image's own record: an id
that is published again must not be answered with what was found before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aiokafka import ConsumerRecord

from imagewire.api.kafka_tail import KafkaTail
from sinks.kafka.records import DeadLetterHeader, OutputHeader
from sinks.kafka.settings import KafkaSettings


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an image has no findings: as in its dead letter."""

    stage: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """`findings`: the record of the topic of findings, as JSON; or else `failure`."""

    findings: bytes | None = None
    failure: Failure | None = None


Place = tuple[str, int, int]
"""Topic, partition and offset."""


class Expected:
    """Outcomes of one image id, as they come."""

    def __init__(self) -> None:
        self._come: dict[Place, Outcome] = {}
        self._changed = asyncio.Event()

    def take(self, place: Place, outcome: Outcome) -> None:
        """The outcome of the record at `place` has come."""
        self._come[place] = outcome
        self._changed.set()

    async def outcome(self, place: Place, seconds: float) -> Outcome | None:
        """That of the record at `place`; None if it has not come in `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while place not in self._come:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return None
        return self._come[place]


class Outcomes:
    """Listens for those images that somebody waits for."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._failed = settings.topics.failed
        self._tail = KafkaTail(settings, [settings.topics.findings, settings.topics.failed])
        self._expected: dict[str, list[Expected]] = {}

    async def ready(self) -> None:
        """Return when no outcome that comes from now on is missed. Raises `SinkError`."""
        await self._tail.ready()

    @contextmanager
    def expecting(self, image_id: str) -> Iterator[Expected]:
        """Gathers the outcomes of `image_id` while the context lasts; enter it before publishing,
        and after `ready`."""
        expected = Expected()
        self._expected.setdefault(image_id, []).append(expected)
        self._tail.listen(self._take)
        try:
            yield expected
        finally:
            waiting = self._expected[image_id]
            waiting.remove(expected)
            if not waiting:
                del self._expected[image_id]
            if not self._expected:
                self._tail.leave(self._take)

    async def close(self) -> None:
        """Stop listening."""
        await self._tail.close()

    def _take(self, record: ConsumerRecord) -> None:
        headers = {name: value.decode("utf-8", "replace") for name, value in record.headers}
        failed = record.topic == self._failed
        image_id, *source = (
            (
                DeadLetterHeader.IMAGE_ID,
                DeadLetterHeader.SOURCE_TOPIC,
                DeadLetterHeader.SOURCE_PARTITION,
                DeadLetterHeader.SOURCE_OFFSET,
            )
            if failed
            else (
                OutputHeader.IMAGE_ID,
                OutputHeader.SOURCE_TOPIC,
                OutputHeader.SOURCE_PARTITION,
                OutputHeader.SOURCE_OFFSET,
            )
        )
        waiting = self._expected.get(headers.get(image_id, ""))
        if not waiting:
            return
        topic, partition, offset = (headers.get(name, "") for name in source)
        if not (partition.isdecimal() and offset.isdecimal()):  # not written by a worker
            return
        if failed:
            outcome = Outcome(
                failure=Failure(
                    headers.get(DeadLetterHeader.STAGE, ""),
                    headers.get(DeadLetterHeader.REASON, ""),
                    headers.get(DeadLetterHeader.DETAIL, ""),
                )
            )
        else:
            outcome = Outcome(findings=bytes(record.value or b"null"))
        for expected in waiting:
            expected.take((topic, int(partition), int(offset)), outcome)
