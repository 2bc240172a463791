"""Makes sure that two reviewers do not get the same image: claims on a topic, with an end.

A claim is a record under the image's id. Kafka keeps one order of the records of a key, so of two
reviewers who claim the same image at the same moment both see who was first. Whoever claims reads
the topic up to the own record before showing anything; a claim ends by itself when its lease is
over, or with the next claim of the same reviewer on the same image.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from sinks.kafka.reachable import connection_error
from sinks.kafka.settings import KafkaSettings
from sinks.sink import TransientSinkError

_SILENCE_SECONDS = 20.0


class Claim(msgspec.Struct, frozen=True):
    """A record of the topic of claims; `claimed_at` and `until` are milliseconds since the epoch.
    One whose `until` is `claimed_at` gives the image back."""

    image_id: str
    reviewer: str
    claim_id: str
    claimed_at: int
    until: int


_decode = msgspec.json.Decoder(Claim).decode


class Claims:
    """The claims that hold at the moment. Open with `claims`."""

    def __init__(
        self, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, settings: KafkaSettings
    ) -> None:
        self._consumer = consumer
        self._producer = producer
        self._settings = settings
        self._held: dict[str, Claim] = {}

    async def read(self) -> None:
        """Take in every claim that stands on the topic now.

        Raises:
            TransientSinkError: the broker does not answer.
        """
        await self._read_to(None)

    def held_by(self, image_id: str) -> str | None:
        """Who holds this image at the moment, as far as was read."""
        claim = self._held.get(image_id)
        return claim.reviewer if claim is not None and claim.until > _now() else None

    async def claim(self, image_id: str, reviewer: str, seconds: float) -> bool:
        """Claim an image; whether nobody else was first.

        Raises:
            TransientSinkError: the broker does not answer.
        """
        now = _now()
        claim = Claim(image_id, reviewer, str(uuid.uuid4()), now, now + int(seconds * 1000))
        await self._publish(claim)
        held = self._held.get(image_id)
        return held is not None and held.claim_id == claim.claim_id

    async def give_back(self, image_id: str, reviewer: str) -> None:
        """End a claim of this reviewer's.

        Raises:
            TransientSinkError
        """
        now = _now()
        await self._publish(Claim(image_id, reviewer, str(uuid.uuid4()), now, now))

    async def _publish(self, claim: Claim) -> None:
        try:
            stored = await self._producer.send_and_wait(
                self._settings.topics.claims,
                msgspec.json.encode(claim),
                key=claim.image_id.encode(),
            )
        except (KafkaError, OSError) as error:
            raise self._away(error) from error
        await self._read_to((stored.partition, stored.offset))

    async def _read_to(self, place: tuple[int, int] | None) -> None:
        """Read up to the end of every partition, or up to and with one record."""
        deadline = time.monotonic() + _SILENCE_SECONDS
        while True:
            try:
                batches = await self._consumer.getmany(timeout_ms=50)
                for records in batches.values():
                    for record in records:
                        self._take(record.value)
                if await self._is_there(place):
                    return
            except (KafkaError, OSError) as error:
                raise self._away(error) from error
            if batches:
                deadline = time.monotonic() + _SILENCE_SECONDS
            elif time.monotonic() > deadline:
                raise TransientSinkError(
                    f"{self._settings.bootstrap_servers} gave no claims for "
                    f"{_SILENCE_SECONDS:.0f} s (topic {self._settings.topics.claims}); a worker "
                    "makes that topic at its first start"
                )

    async def _is_there(self, place: tuple[int, int] | None) -> bool:
        consumer = self._consumer
        if place is not None:
            partition = TopicPartition(self._settings.topics.claims, place[0])
            return bool(await consumer.position(partition) > place[1])
        partitions = consumer.assignment()
        for partition in partitions:
            # By the watermark of fetches: tansu's answer to `end_offsets` is wrong at times.
            highwater = consumer.highwater(partition)
            if highwater is None or await consumer.position(partition) < highwater:
                return False
        return bool(partitions)

    def _take(self, value: bytes | None) -> None:
        try:
            claim = _decode(value or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return  # nobody's claim; whoever wrote it holds nothing
        held = self._held.get(claim.image_id)
        if held is not None and held.until > claim.claimed_at and held.reviewer != claim.reviewer:
            return  # somebody was first
        self._held[claim.image_id] = claim

    def _away(self, error: Exception) -> TransientSinkError:
        return TransientSinkError(
            f"the broker at {self._settings.bootstrap_servers} does not take or give claims: "
            f"{error!r}"
        )


@asynccontextmanager
async def claims(settings: KafkaSettings) -> AsyncIterator[Claims]:
    """Opens the topic of claims, with every claim of it read.

    Raises:
        TransientSinkError: the broker cannot be reached.
    """
    consumer = AIOKafkaConsumer(
        settings.topics.claims,
        group_id=None,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=50,
        **settings.client_options(),
    )
    producer = AIOKafkaProducer(**settings.producer_options())
    clients: Sequence[AIOKafkaConsumer | AIOKafkaProducer] = (consumer, producer)
    try:
        try:
            await asyncio.gather(*(client.start() for client in clients))
        except (KafkaError, OSError) as error:
            where = f"no broker answers at {settings.bootstrap_servers}"
            raise await connection_error(settings, error, where) from error
        opened = Claims(consumer, producer, settings)
        await opened.read()
        yield opened
    finally:
        for client in clients:
            await client.stop()


def _now() -> int:
    return time.time_ns() // 1_000_000
