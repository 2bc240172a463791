"""Writes what became of frames to Kafka, verdicts before all else.

A frame is written when the brokers hold every record about it (`acks=all`). Delivery is at least
once: a batch that is written again appears again, under the same key and with the source record's
coordinates in its headers, so that consumers can discard the repeat.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import msgspec
from aiokafka import AIOKafkaProducer, errors

from operators.frame import Frame
from sinks.kafka.blocks import Record, send_in_batches
from sinks.kafka.errors import TOO_LARGE, as_sink_error
from sinks.kafka.reachable import connection_error
from sinks.kafka.records import (
    DeadLetterHeader,
    dead_letter_headers,
    findings_record,
    output_headers,
    review_record,
    verdict_record,
)
from sinks.kafka.settings import KafkaSettings
from sinks.sink import PermanentSinkError, Sink, SinkError, TransientSinkError

log = logging.getLogger(__name__)


_FRAMES_AT_ONCE = 50
"""Frames whose records are made before others on the event loop have their turn: some
20 µs each."""

_OWN_BATCH_BYTES = 128 * 1024
"""Records from here on are sent alone: half of what a batch holds (`producer_options`)."""


class KafkaSink(Sink):
    """Verdicts, findings, reviews and dead letters, each on its topic.

    Args:
        settings: connection and topics. The topics must exist; see `ensure_topics`.
        producer: a started producer to use instead of one of the sink's own. It is neither
            replaced after an error nor stopped.
    """

    name: ClassVar[str] = "kafka"

    def __init__(self, settings: KafkaSettings, producer: AIOKafkaProducer | None = None) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = producer
        self._producer_is_ours = producer is None
        self._starting = asyncio.Lock()
        self._encoder = msgspec.json.Encoder()

    async def open(self) -> None:
        await self._ready_producer()

    async def write(self, frames: Sequence[Frame]) -> None:
        """Produce every record about `frames`; return when the brokers have acknowledged all.

        Verdicts are acknowledged before any other record is sent, so that whoever sees findings
        can rely on the verdict being there.
        """
        topics = self._settings.topics
        verdicts: list[Record] = []
        others: list[Record] = []
        for number, frame in enumerate(frames, 1):
            if number % _FRAMES_AT_ONCE == 0:
                await asyncio.sleep(0)
            if frame.failed:
                origin = frame.origin
                headers = dead_letter_headers(frame)
                others.append(Record(frame, topics.failed, origin.key, origin.value, headers))
                continue
            key = frame.image_id.encode()
            headers = output_headers(frame)
            verdict = frame.findings.verdict
            if verdict is not None:
                value = self._encoded(frame, topics.verdicts, verdict_record(frame, verdict))
                verdicts.append(Record(frame, topics.verdicts, key, value, headers))
            found = findings_record(frame, self._settings.include_embedding)
            value = self._encoded(frame, topics.findings, found)
            others.append(Record(frame, topics.findings, key, value, headers))
            if verdict is not None and (verdict.action == "review" or verdict.audit):
                value = self._encoded(frame, topics.review, review_record(frame, verdict))
                others.append(Record(frame, topics.review, key, value, headers))
        await self._produce(verdicts)
        await self._produce(others)

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None and self._producer_is_ours:
            await _stop(producer, within_s=5.0)

    def _encoded(self, frame: Frame, topic: str, record: msgspec.Struct) -> bytes:
        try:
            return self._encoder.encode(record)
        except (TypeError, ValueError) as error:
            # Only metadata and third-party operators' extras are free in form.
            raise PermanentSinkError(
                f"writing image {frame.image_id} to topic {topic}: its metadata or extra findings "
                f"cannot be written as JSON ({error}); mend the operator that adds them"
            ) from error

    async def _produce(self, records: Sequence[Record]) -> None:
        """Send `records` in order and await all acknowledgements.

        Every acknowledgement is awaited even after a failure, so that no delivery goes on behind
        the back of the caller, who may write the same frames again.
        """
        if not records:
            return
        producer = await self._ready_producer()
        # An idempotent producer retries without end; this bound lets the caller see the outage.
        patience_s = 2.5 * self._settings.request_timeout_ms / 1000
        try:
            async with asyncio.timeout(patience_s):
                failed = await self._send_all(producer, records)
        except TimeoutError as error:
            await self._give_up(producer)
            raise TransientSinkError(
                f"{records[0].doing}: no acknowledgement from {self._settings.bootstrap_servers} "
                f"within {patience_s:.0f} s"
            ) from error
        if failed:
            await self._raise_first(producer, failed)

    async def _send_all(
        self, producer: AIOKafkaProducer, records: Sequence[Record]
    ) -> list[tuple[Record, BaseException]]:
        # Its exact size is judged when it is sent alone.
        largest = min(_OWN_BATCH_BYTES, self._settings.max_record_bytes // 2)
        alone: list[Record] = []
        together: list[Record] = []
        for record in records:
            # Dead letters are what somebody else made: of any size, and with or without a key.
            fits = not record.frame.failed and len(record.value or b"") < largest
            (together if fits else alone).append(record)
        failed = await send_in_batches(producer, together)
        # A broker may take less in a batch than is put into one here.
        alone += [record for record, error in failed if isinstance(error, TOO_LARGE)]
        failed = [each for each in failed if not isinstance(each[1], TOO_LARGE)]
        pending: list[tuple[Record, asyncio.Future[Any]]] = []
        for record in alone:
            try:
                pending.append((record, await _send(producer, record)))
            except (errors.KafkaError, OSError) as error:
                failed.append((record, error))
        results = await asyncio.gather(*(future for _, future in pending), return_exceptions=True)
        for (record, _), result in zip(pending, results, strict=True):
            if isinstance(result, BaseException):
                failed.append((record, result))
        return await self._without_oversized_values(producer, failed)

    async def _without_oversized_values(
        self, producer: AIOKafkaProducer, failed: list[tuple[Record, BaseException]]
    ) -> list[tuple[Record, BaseException]]:
        """Send dead letters that were too large again, without their value.

        A dead letter must not fail for good, or the image would hold up its partition for ever.
        The source record's coordinates are in its headers, so that its value can still be found.
        """
        still_failed: list[tuple[Record, BaseException]] = []
        for record, error in failed:
            if not (record.frame.failed and record.value and isinstance(error, TOO_LARGE)):
                still_failed.append((record, error))
                continue
            log.warning("%s: too large for the broker; its value is left out", record.doing)
            omitted = (DeadLetterHeader.VALUE_OMITTED.value, str(len(record.value)).encode())
            smaller = Record(
                record.frame, record.topic, record.key, None, [*record.headers, omitted]
            )
            try:
                await (await _send(producer, smaller))
            except (errors.KafkaError, OSError) as second:
                still_failed.append((smaller, second))
        return still_failed

    async def _raise_first(
        self, producer: AIOKafkaProducer, failed: list[tuple[Record, BaseException]]
    ) -> None:
        """Raise for the whole batch; a transient error outranks, since its retry covers all."""
        raised: list[tuple[SinkError, BaseException]] = [
            (as_sink_error(error, record.doing), error) for record, error in failed
        ]
        if any(not getattr(error, "retriable", False) for _, error in raised) and not all(
            isinstance(error, TOO_LARGE) for _, error in raised
        ):
            # Some errors leave the producer unusable (fenced, out of sequence, its sender dead),
            # and aiokafka does not always say so. A fresh one costs milliseconds.
            await self._give_up(producer)
        for sink_error, cause in raised:
            if isinstance(sink_error, TransientSinkError):
                raise sink_error from cause
        raise raised[0][0] from raised[0][1]

    async def _ready_producer(self) -> AIOKafkaProducer:
        # Several writes may come at once, each of which would start one and leave it running.
        async with self._starting:
            if self._producer is None:
                self._producer = await self._start_producer()
            return self._producer

    async def _give_up(self, producer: AIOKafkaProducer) -> None:
        if self._producer_is_ours:
            self._producer = None
            await _stop(producer, within_s=1.0)

    async def _start_producer(self) -> AIOKafkaProducer:
        where = f"connecting to Kafka at {self._settings.bootstrap_servers}"
        wanted = self._settings.idempotence
        if wanted != "off":
            try:
                with _probing():
                    return await self._started(idempotent=True)
            except (errors.UnknownError, errors.UnsupportedVersionError) as error:
                # The tansu broker answers aiokafka's InitProducerId in this way.
                if wanted == "on":
                    raise PermanentSinkError(
                        f"{where}: the broker cannot do idempotent producing "
                        f"({type(error).__name__}); set kafka.idempotence to 'auto' or 'off'"
                    ) from error
                log.info("%s: no idempotent producing; a network retry may repeat a record", where)
            except (errors.KafkaError, OSError, ValueError) as error:
                raise await connection_error(self._settings, error, where) from error
        try:
            return await self._started(idempotent=False)
        except (errors.KafkaError, OSError, ValueError) as error:
            raise await connection_error(self._settings, error, where) from error

    async def _started(self, idempotent: bool) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            enable_idempotence=idempotent, **self._settings.producer_options()
        )
        try:
            async with asyncio.timeout(self._settings.request_timeout_ms / 1000):
                await producer.start()
        except BaseException:
            await _stop(producer, within_s=1.0)
            raise
        return producer


@contextmanager
def _probing() -> Iterator[None]:
    """Keep aiokafka from logging as an error what the probe for idempotence is there to find out;
    the sink says it in its own words."""
    logger = logging.getLogger("aiokafka.producer.sender")

    def is_news(record: logging.LogRecord) -> bool:
        return "InitProducerId" not in record.getMessage()

    logger.addFilter(is_news)
    try:
        yield
    finally:
        logger.removeFilter(is_news)


async def _send(producer: AIOKafkaProducer, record: Record) -> asyncio.Future[Any]:
    future: asyncio.Future[Any]
    if record.key is not None or record.value is not None:
        future = await producer.send(
            record.topic, value=record.value, key=record.key, headers=record.headers
        )
    else:
        # `send` refuses a record with neither key nor value, which Kafka allows and which somebody
        # did send; a batch made by hand takes it.
        partitions = sorted(await producer.partitions_for(record.topic))
        batch = producer.create_batch()
        batch.append(key=None, value=None, timestamp=None, headers=record.headers)
        batch.close()
        partition = partitions[record.frame.origin.partition % len(partitions)]
        future = await producer.send_batch(batch, record.topic, partition=partition)
    return future


async def _stop(producer: AIOKafkaProducer, within_s: float) -> None:
    """Stop `producer`, flushing if the broker is there to take it, else letting go."""
    try:
        async with asyncio.timeout(within_s):
            await producer.stop()
    except (TimeoutError, errors.KafkaError, OSError) as error:
        log.warning("a Kafka producer was dropped with records unsent: %r", error)
        # `stop` waits for a flush that an absent broker never grants, and once cancelled leaves
        # its sender task running; there is no public way to end it.
        sender = producer._sender.sender_task
        if sender is not None:
            sender.cancel()
        await producer.client.close()
