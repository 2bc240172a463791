"""Tells receivers of verdicts over HTTP, for as long as it takes, and never holds up an image.

Each receiver is a consumer group of its own on the topic of verdicts, so what it was told survives
restarts, and one that is down keeps nobody else waiting. Up to some hundred messages are under way
at a time, each with its own pauses; an offset is committed when it and all before it were delivered
or became dead letters. A message that is delivered again has the same id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
import uuid
from collections.abc import Iterable

import msgspec
import stamina
from aiohttp.abc import AbstractResolver
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from imagewire.webhooks_sending import Attempt, WebhookSender
from imagewire.webhooks_settings import WebhookSettings
from operators.frame import NAMESPACE, Frame, Origin
from sinks.event_time import rfc3339
from sinks.kafka.records import OutputHeader
from sinks.kafka.settings import KafkaSettings
from sinks.kafka.sink import KafkaSink
from sinks.sink import AccessSinkError, TransientSinkError
from streams.ledger import Entry, Ledger
from streams.metrics import Metrics
from streams.tombstones import Covers, nothing_erased

logger = logging.getLogger(__name__)

STAGE = "webhook"
"""The stage of dead letters that are verdicts which a receiver was not told."""

MESSAGE_TYPE = "image.verdict"
_MOST_UNDER_WAY = 500
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 300.0
_COMMIT_SECONDS = 1.0


class ToldVerdict(msgspec.Struct, frozen=True):
    """What of a verdict decides whether it is told."""

    image_id: str
    feed: str
    action: str
    content_id: str | None = None
    decision_id: str | None = None

    def message_id(
        self, headers: Iterable[tuple[str, bytes | None]], place: tuple[str, int, int]
    ) -> str:
        """The same for every repeat of a verdict on the topic, whatever its offset.

        Args:
            headers: of its record.
            place: topic, partition and offset of its record, which counts where the headers do not
                say from which image's record the verdict comes.
        """
        found = dict(headers)
        source = (
            OutputHeader.SOURCE_TOPIC,
            OutputHeader.SOURCE_PARTITION,
            OutputHeader.SOURCE_OFFSET,
        )
        origin = [(found.get(name.value) or b"").decode(errors="replace") for name in source]
        if not all(origin):
            origin = [str(part) for part in place]
        parts = (self.image_id, self.action, self.decision_id or "", *origin)
        return f"msg_{uuid.uuid5(NAMESPACE, chr(0).join(parts)).hex}"


decode_told = msgspec.json.Decoder(ToldVerdict).decode
"""Raises msgspec.MsgspecError or UnicodeDecodeError for what is no verdict."""


def message_body(timestamp_ms: int | None, verdict: bytes | None) -> bytes:
    """What is posted: the record of the verdict, with the time at which it reached Kafka."""
    at = rfc3339(max(timestamp_ms or 0, 0))
    head = f'{{"type":"{MESSAGE_TYPE}","timestamp":"{at}","data":'.encode()
    return head + (verdict or b"null") + b"}"


class Notifier(ConsumerRebalanceListener):  # type: ignore[misc]
    """Follows the verdicts for one receiver.

    Args:
        group: prefix of the consumer group; the receiver's name is added.
        forgotten: whether an image was erased: nobody is told of it any more.
        first_pause: seconds before the second attempt; each pause is about twice the last.
    """

    def __init__(
        self,
        settings: WebhookSettings,
        kafka: KafkaSettings,
        group: str,
        metrics: Metrics,
        *,
        forgotten: Covers = nothing_erased,
        resolver: AbstractResolver | None = None,
        first_pause: float = _FIRST_PAUSE,
    ) -> None:
        self._settings = settings
        self._kafka = kafka
        self._group = f"{group}.webhook.{settings.name}"
        self._metrics = metrics
        self._forgotten = forgotten
        self._sender = WebhookSender(settings, resolver)
        self._first_pause = first_pause
        self._letters = KafkaSink(kafka)
        self._ledger = Ledger()
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._assigned: set[TopicPartition] = set()
        self._committed: dict[tuple[str, int], int] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self.trouble: str | None = None
        self._defect: BaseException | None = None
        self.began = False
        """Whether it is known where in each partition it stands: verdicts from now on are told."""

    async def run(self) -> None:
        """Tell of verdicts until cancelled; what was not committed is told again later."""
        async with self._sender:
            try:
                while True:
                    try:
                        await self._follow()
                    except (KafkaError, OSError) as error:
                        self._say(f"webhook '{self._settings.name}' waits for Kafka: {error!r}")
                    except Exception as error:
                        logger.exception("webhook '%s' failed", self._settings.name)
                        self._say(f"webhook '{self._settings.name}' failed: {error!r}")
                    await asyncio.sleep(1.0)
            finally:
                await self._letters.close()

    def _say(self, trouble: str) -> None:
        if self.trouble is None:
            logger.warning("%s; trying again", trouble)
        self.trouble = trouble

    # the consumer group

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Called by the consumer before partitions go to another worker."""
        with contextlib.suppress(KafkaError, OSError):  # then some are told twice
            await self._commit()
        self._let_go()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Called by the consumer when it knows its share."""
        self._assigned = set(assigned)

    async def _follow(self) -> None:
        consumer = AIOKafkaConsumer(
            group_id=self._group,
            # A new receiver is told what comes from now on.
            auto_offset_reset="latest",
            enable_auto_commit=False,
            fetch_max_wait_ms=250,
            # A receiver may be down for days; the group is left only when the worker dies.
            max_poll_interval_ms=86_400_000,
            session_timeout_ms=10_000,
            heartbeat_interval_ms=2_500,
            metadata_max_age_ms=30_000,
            **self._kafka.client_options(),
        )
        consumer.subscribe([self._kafka.topics.verdicts], listener=self)
        self._consumer = consumer
        committing: asyncio.Task[None] | None = None
        try:
            await consumer.start()
            committing = asyncio.create_task(self._commit_now_and_then())
            while True:
                await self._begin_at_committed(consumer)
                while len(self._tasks) >= _MOST_UNDER_WAY:
                    await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
                batches = await consumer.getmany(timeout_ms=500, max_records=_MOST_UNDER_WAY)
                for records in batches.values():
                    for number, record in enumerate(records):
                        self._take(record)
                        if number % 100 == 99:
                            await asyncio.sleep(0)
                if committing.done():
                    committing.result()
                if (defect := self._defect) is not None:
                    self._defect = None
                    raise defect
        finally:
            if committing is not None:
                committing.cancel()
                await asyncio.wait([committing])
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                async with asyncio.timeout(2.0):
                    await self._commit()
            self._let_go()
            self._consumer = None
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                async with asyncio.timeout(5.0):
                    await consumer.stop()

    async def _begin_at_committed(self, consumer: AIOKafkaConsumer) -> None:
        """Commit where a new group begins: else a restart before the first delivery would begin at
        the end again, and verdicts in between would be told to nobody."""
        while self._assigned:
            partition = self._assigned.pop()
            if await consumer.committed(partition) is None:
                await consumer.commit({partition: await consumer.position(partition)})
            self.began = True

    async def _commit_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_COMMIT_SECONDS)
            await self._commit()

    async def _commit(self) -> None:
        positions = self._ledger.positions()
        new = {
            TopicPartition(*place): offset
            for place, offset in positions.items()
            if self._committed.get(place) != offset
        }
        if new and self._consumer is not None:
            await self._consumer.commit(new)
            self._committed |= positions

    def _let_go(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._ledger.revoke()
        self._committed.clear()

    # one verdict

    def _take(self, record: ConsumerRecord) -> None:
        entry = self._ledger.begin((record.topic, record.partition), record.offset, lambda: None)
        try:
            told = decode_told(record.value or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            logger.warning(
                "%s/%d/%d is no verdict and is told to nobody: %s",
                *(record.topic, record.partition, record.offset, error),
            )
            self._ledger.finish(entry)
            return
        feeds = self._settings.feeds
        if (
            told.action not in self._settings.actions
            or (feeds and told.feed not in feeds)
            or self._is_forgotten(record, told)
        ):
            self._ledger.finish(entry)
            return
        task = asyncio.create_task(self._tell(record, told, entry))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its offset would never be committed: begin again where was committed last.
            self._defect = error

    async def _tell(self, record: ConsumerRecord, told: ToldVerdict, entry: Entry) -> None:
        place = (record.topic, record.partition, record.offset)
        message_id = told.message_id(record.headers, place)
        body = message_body(record.timestamp, record.value)
        born = record.timestamp / 1000 if record.timestamp and record.timestamp > 0 else time.time()
        pause = self._first_pause
        attempts = 0
        while True:
            async with self._slots:
                attempt = await self._sender.send(message_id, body)
            attempts += 1
            self._metrics.webhooks.labels(self._settings.name, attempt.outcome).inc()
            if attempt.outcome == "delivered":
                self.trouble = None
                break
            self._say(f"webhook '{self._settings.name}': {attempt.detail}")
            if self._is_forgotten(record, told):
                break
            left = born + self._settings.max_age - time.time()
            if attempt.outcome == "gone" or left <= 0:
                await self._bury(record, told, attempt, attempts)
                break
            wait = max(pause * random.uniform(0.5, 1.0), attempt.retry_after or 0.0)  # noqa: S311
            await asyncio.sleep(min(wait, max(left, 0.1)))
            pause = min(pause * 2, _LONGEST_PAUSE)
            if self._is_forgotten(record, told):
                break
        self._ledger.finish(entry)

    def _is_forgotten(self, record: ConsumerRecord, told: ToldVerdict) -> bool:
        return self._forgotten(told.image_id, told.content_id, told.feed, record.timestamp)

    async def _bury(
        self, record: ConsumerRecord, told: ToldVerdict, attempt: Attempt, attempts: int
    ) -> None:
        origin = Origin(
            *(record.topic, record.partition, record.offset),
            max(record.timestamp or 0, 0),
            *(record.key, record.value, tuple(record.headers)),
        )
        letter = Frame(told.image_id, told.feed, origin.timestamp_ms, origin)
        tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        letter.fail(
            STAGE,
            "gone" if attempt.outcome == "gone" else "gave-up",
            f"webhook '{self._settings.name}' was not told after {tries}: {attempt.detail}",
        )
        async for retry in stamina.retry_context(
            on=(TransientSinkError, AccessSinkError),
            attempts=None,
            timeout=None,
            wait_initial=0.2,
            wait_max=15.0,
        ):
            with retry:
                await self._letters.write([letter])
        self._metrics.webhooks.labels(self._settings.name, "dead-letter").inc()
