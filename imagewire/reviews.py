"""Takes decisions of people from Kafka: stores them, tells every worker, publishes the new verdict.

A consumer group of its own shares the decisions among the workers, and an offset is committed only
when the decision's row, its overrides and its verdict are safe; so a decision is taken at least
once and, by deterministic ids, leaves one row. Whatever is away is asked again for as long as it
takes, without holding up a single image. A record that is no decision becomes a dead letter.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import stamina
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import KafkaError

from operators.findings import RuleHit, Verdict
from operators.frame import Frame, Origin
from sinks.clickhouse.reviews import KnownImage, ReviewStore
from sinks.event_time import rfc3339
from sinks.kafka.errors import as_sink_error
from sinks.kafka.records import OutputHeader, VerdictRecord, verdict_record
from sinks.kafka.settings import KafkaSettings
from sinks.kafka.sink import KafkaSink
from sinks.sink import AccessSinkError, SinkError, TransientSinkError
from streams.metrics import Metrics
from streams.record_fields import RecordError
from streams.reviews import Decision, decision_from_record, failed_decision
from streams.reviews_overrides import Overrides, as_person, override_records
from streams.tombstones import Covers, nothing_erased

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MOST_AT_ONCE = 200
_LOOK_AGAIN = (0.5, 1.0, 2.0)
"""Seconds between looks for an image that is not in ClickHouse: its row may be gathering still when
a program decides on what it read from Kafka."""


@dataclass(frozen=True, slots=True)
class _Taken:
    """A decision and the record that it came in."""

    decision: Decision
    origin: Origin


_Known = tuple[Decision, KnownImage | None, Origin]
"""A decision, its image if ClickHouse has it, and the record that it came in."""


class ReviewIntake:
    """Reads `images.reviews` for as long as the worker lives.

    Args:
        group: the consumer group that shares the decisions.
        overrides: this worker's; decisions that are outrun by later ones make no new verdict.
        store: ClickHouse, if it is in use.
        forgotten: whether an image was erased: decisions on it are dropped.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        group: str,
        *,
        overrides: Overrides,
        store: ReviewStore | None,
        metrics: Metrics,
        forgotten: Covers = nothing_erased,
    ) -> None:
        self._settings = settings
        self._group = group
        self._overrides = overrides
        self._store = store
        self._metrics = metrics
        self._forgotten = forgotten
        self._encoder = msgspec.json.Encoder()
        self._repairs: dict[bytes, bytes] = {}
        self.trouble: str | None = None

    def repair(self, key: bytes, value: bytes) -> None:
        """Write this record of the topic of overrides once more: an older decision came after it,
        and compaction would keep that one."""
        self._repairs[key] = value

    async def run(self) -> None:
        """Take decisions until cancelled; what was not committed then comes again."""
        while True:
            try:
                await self._consume()
            except (KafkaError, OSError, SinkError) as error:
                self._say(f"decisions of people wait: {error}")
            except Exception as error:
                logger.exception("taking decisions of people failed unexpectedly")
                self._say(f"decisions of people wait: {type(error).__name__}: {error}")
            await asyncio.sleep(1.0)

    def _say(self, trouble: str) -> None:
        if self.trouble is None:
            logger.warning("%s; trying again until it works", trouble)
        self.trouble = trouble

    async def _consume(self) -> None:
        options = self._settings.client_options()
        consumer = AIOKafkaConsumer(
            self._settings.topics.reviews,
            group_id=self._group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            fetch_max_wait_ms=250,
            # A store may be away for hours; the group is left only when the worker dies.
            max_poll_interval_ms=86_400_000,
            session_timeout_ms=10_000,
            heartbeat_interval_ms=2_500,
            metadata_max_age_ms=30_000,
            **options,
        )
        producer = AIOKafkaProducer(**self._settings.producer_options())
        letters = KafkaSink(self._settings, producer)
        try:
            await consumer.start()
            await producer.start()
            while True:
                batches = await consumer.getmany(timeout_ms=500, max_records=_MOST_AT_ONCE)
                records = [record for each in batches.values() for record in each]
                if records:
                    await self._take(records, producer, letters)
                    await consumer.commit(
                        {tp: each[-1].offset + 1 for tp, each in batches.items() if each}
                    )
                if self._repairs:
                    repairs, self._repairs = list(self._repairs.items()), {}
                    await self._until_safe(
                        lambda again=repairs: self._send(  # type: ignore[misc]
                            producer, self._settings.topics.overrides, again
                        )
                    )
                if self.trouble is not None:
                    logger.warning("decisions of people are taken again")
                    self.trouble = None
        finally:
            for client in (producer, consumer):
                try:
                    async with asyncio.timeout(5.0):
                        await client.stop()
                except (TimeoutError, KafkaError, OSError) as error:
                    logger.debug("closing a client of the reviews: %r", error)

    async def _take(
        self, records: Sequence[ConsumerRecord], producer: AIOKafkaProducer, letters: KafkaSink
    ) -> None:
        taken: list[_Taken] = []
        failed: list[Frame] = []
        for record in records:
            origin = _origin(record)
            try:
                taken.append(_Taken(decision_from_record(origin), origin))
            except RecordError as error:
                failed.append(failed_decision(origin, error.reason, str(error)))
                logger.warning("a record of %s is no decision: %s", origin.topic, error)
        if failed:
            await self._until_safe(lambda: letters.write(failed))
            self._metrics.reviews.labels("refused").inc(len(failed))
        kept = [each for each in taken if not self._is_forgotten(each.decision, each.origin)]
        self._metrics.reviews.labels("forgotten").inc(len(taken) - len(kept))
        if not kept:
            return
        # First of all, so that what comes in meanwhile is judged by it already.
        await self._until_safe(lambda: self._tell([each.decision for each in kept], producer))
        images = await self._images([each.decision.image_id for each in kept])
        known: list[_Known] = []
        late: list[Decision] = []
        for each in kept:
            image = images.get(each.decision.image_id)
            decision = _completed(each.decision, image)
            # An image's content and feed may be known only now.
            if self._is_forgotten(decision, each.origin):
                continue
            if decision.content_id is not None and each.decision.content_id is None:
                late.append(decision)
            known.append((decision, image, each.origin))
        if late:
            await self._until_safe(lambda: self._tell(late, producer))
        if (store := self._store) is not None:
            rows = [
                (
                    decision,
                    image,
                    (origin.topic, origin.partition, origin.offset, origin.timestamp_ms),
                )
                for decision, image, origin in known
            ]
            await self._until_safe(lambda: store.store(rows))
        await self._until_safe(lambda: self._publish(known, producer))
        for decision, _, _ in known:
            self._metrics.reviews.labels(decision.choice).inc()

    def _is_forgotten(self, decision: Decision, origin: Origin) -> bool:
        return self._forgotten(
            decision.image_id, decision.content_id, decision.feed, origin.timestamp_ms
        )

    async def _images(self, image_ids: Sequence[str]) -> dict[str, KnownImage]:
        store = self._store
        if store is None:
            return {}
        found = await self._until_safe(lambda: store.images(image_ids))
        for pause in _LOOK_AGAIN:
            missing = [image_id for image_id in image_ids if image_id not in found]
            if not missing:
                break
            await asyncio.sleep(pause)
            found |= await self._until_safe(lambda ids=missing: store.images(ids))  # type: ignore[misc]
        return found

    async def _tell(self, decisions: Sequence[Decision], producer: AIOKafkaProducer) -> None:
        """Tell every worker, this one included, at once."""
        for decision in decisions:
            for key, value in override_records(decision):
                self._overrides.apply(key, value)
        await self._send(
            producer,
            self._settings.topics.overrides,
            [pair for decision in decisions for pair in override_records(decision)],
        )

    async def _publish(
        self,
        decided: Sequence[_Known],
        producer: AIOKafkaProducer,
    ) -> None:
        records = []
        for decision, image, origin in decided:
            standing = self._overrides.standing(decision.image_id, decision.content_id)
            if standing is not None and standing.order > decision.order:
                continue  # a later decision stands, and has its own verdict
            record = _verdict_record(decision, image)
            if record is not None:
                headers = _headers(decision, origin)
                records.append((decision.image_id.encode(), self._encoder.encode(record), headers))
        await self._send(producer, self._settings.topics.verdicts, records)

    async def _send(
        self, producer: AIOKafkaProducer, topic: str, records: Sequence[tuple[Any, ...]]
    ) -> None:
        doing = f"writing decisions to topic {topic}"
        try:
            sent = [
                await producer.send(topic, value, key=key, headers=list(rest[0]) if rest else None)
                for key, value, *rest in records
            ]
            await asyncio.gather(*sent)
        except (KafkaError, OSError) as error:
            raise as_sink_error(error, doing) from error

    async def _until_safe(self, work: Callable[[], Awaitable[T]]) -> T:
        def away(error: Exception) -> bool:
            if isinstance(error, TransientSinkError | AccessSinkError):
                self._say(f"decisions of people wait: {error}")
                return True
            return False

        async for attempt in stamina.retry_context(
            on=away, attempts=None, timeout=None, wait_initial=0.2, wait_max=15.0
        ):
            with attempt:
                return await work()
        raise RuntimeError("unreachable: retries have no end")


def _completed(decision: Decision, image: KnownImage | None) -> Decision:
    """`decision` with what is known of its image; of that, its own word counts least."""
    if image is None:
        return decision
    return msgspec.structs.replace(
        decision,
        content_id=decision.content_id or image.content_id,
        feed=image.feed,
        event_time_ms=image.event_time_ms,
        uri=image.uri,
    )


def _verdict_record(decision: Decision, image: KnownImage | None) -> VerdictRecord | None:
    """The verdict that follows from a decision; `None` where one was withdrawn and nothing is known
    of what the policy had said."""
    machine = image.machine_verdict if image is not None else "none"
    if decision.choice == "withdraw" and machine == "none":
        return None
    action = decision.choice if decision.choice != "withdraw" else machine
    verdict = Verdict(
        action=action if machine == "none" else machine,  # type: ignore[arg-type]
        policy=image.policy if image is not None else "",
        rules=[msgspec.convert(hit, RuleHit) for hit in image.hits] if image is not None else [],
    )
    if decision.choice == "withdraw":
        verdict = msgspec.structs.replace(
            verdict, decision_id=decision.decision_id, decided_at=rfc3339(decision.decided_at_ms)
        )
    else:
        verdict = as_person(verdict, decision.choice, decision.decided_at_ms, decision.decision_id)
        if machine == "none":
            verdict = msgspec.structs.replace(verdict, machine_action=None)
    frame = _frame(decision)
    record = verdict_record(frame, verdict)
    return msgspec.structs.replace(record, content_id=decision.content_id)


def _frame(decision: Decision) -> Frame:
    """The image as far as it is known, in the form that records are made from."""
    event_time = decision.event_time_ms
    return Frame(
        image_id=decision.image_id,
        feed=decision.feed or "default",
        event_time_ms=decision.decided_at_ms if event_time is None else event_time,
        origin=Origin("", 0, 0, 0),
        uri=decision.uri,
    )


def _headers(decision: Decision, origin: Origin) -> list[tuple[str, bytes]]:
    return [
        (OutputHeader.IMAGE_ID.value, decision.image_id.encode()),
        (OutputHeader.FEED.value, (decision.feed or "default").encode()),
        (OutputHeader.SOURCE_TOPIC.value, origin.topic.encode()),
        (OutputHeader.SOURCE_PARTITION.value, b"%d" % origin.partition),
        (OutputHeader.SOURCE_OFFSET.value, b"%d" % origin.offset),
    ]


def _origin(record: ConsumerRecord) -> Origin:
    return Origin(
        record.topic,
        record.partition,
        record.offset,
        -1 if record.timestamp is None else record.timestamp,
        record.key,
        record.value,
        tuple(record.headers),
    )
