"""Writes what became of frames to Kafka, verdicts before all else.

A frame is written when the brokers hold every record about it (`acks=all`). Delivery is at least
once: a batch that is written again appears again, under the same key and with the source record's
coordinates in its headers, so that consumers can discard the repeat.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from aiokafka import AIOKafkaProducer, errors

from operators.frame import Frame
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


@dataclass(frozen=True, slots=True)
class _Record:
    """One record to be produced, and the frame that it speaks of."""

    frame: Frame
    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]

    @property
    def doing(self) -> str:
        return f"writing image {self.frame.image_id} to topic {self.topic}"


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
        self._encoder = msgspec.json.Encoder()

    async def open(self) -> None:
        if self._producer is None:
            self._producer = await self._start_producer()

    async def write(self, frames: Sequence[Frame]) -> None:
        """Produce every record about `frames`; return when the brokers have acknowledged all.

        Verdicts are acknowledged before any other record is sent, so that whoever sees findings
        can rely on the verdict being there.
        """
        verdicts = list(self._verdicts(frames))
        others = [*self._findings(frames), *self._reviews(frames), *self._dead_letters(frames)]
        await self._produce(verdicts)
        await self._produce(others)

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None and self._producer_is_ours:
            await _stop(producer, within_s=5.0)

    def _verdicts(self, frames: Iterable[Frame]) -> Iterable[_Record]:
        for frame in frames:
            verdict = frame.findings.verdict
            if not frame.failed and verdict is not None:
                record = verdict_record(frame, verdict)
                yield self._about(frame, self._settings.topics.verdicts, record)

    def _findings(self, frames: Iterable[Frame]) -> Iterable[_Record]:
        for frame in frames:
            if not frame.failed:
                record = findings_record(frame, self._settings.include_embedding)
                yield self._about(frame, self._settings.topics.findings, record)

    def _reviews(self, frames: Iterable[Frame]) -> Iterable[_Record]:
        for frame in frames:
            verdict = frame.findings.verdict
            if not frame.failed and verdict is not None and verdict.action == "review":
                record = review_record(frame, verdict)
                yield self._about(frame, self._settings.topics.review, record)

    def _dead_letters(self, frames: Iterable[Frame]) -> Iterable[_Record]:
        for frame in frames:
            if frame.failed:
                yield _Record(
                    frame,
                    self._settings.topics.failed,
                    frame.origin.key,
                    frame.origin.value,
                    dead_letter_headers(frame),
                )

    def _about(self, frame: Frame, topic: str, record: msgspec.Struct) -> _Record:
        try:
            value = self._encoder.encode(record)
        except (TypeError, ValueError) as error:
            # Only metadata and third-party operators' extras are free in form.
            raise PermanentSinkError(
                f"writing image {frame.image_id} to topic {topic}: its metadata or extra findings "
                f"cannot be written as JSON ({error}); mend the operator that adds them"
            ) from error
        return _Record(frame, topic, frame.image_id.encode(), value, output_headers(frame))

    async def _produce(self, records: Sequence[_Record]) -> None:
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
        self, producer: AIOKafkaProducer, records: Sequence[_Record]
    ) -> list[tuple[_Record, BaseException]]:
        pending: list[tuple[_Record, asyncio.Future[Any]]] = []
        failed: list[tuple[_Record, BaseException]] = []
        for record in records:
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
        self, producer: AIOKafkaProducer, failed: list[tuple[_Record, BaseException]]
    ) -> list[tuple[_Record, BaseException]]:
        """Send dead letters that were too large again, without their value.

        A dead letter must not fail for good, or the image would hold up its partition for ever.
        The source record's coordinates are in its headers, so that its value can still be found.
        """
        still_failed: list[tuple[_Record, BaseException]] = []
        for record, error in failed:
            if not (record.frame.failed and record.value and isinstance(error, TOO_LARGE)):
                still_failed.append((record, error))
                continue
            log.warning("%s: too large for the broker; its value is left out", record.doing)
            omitted = (DeadLetterHeader.VALUE_OMITTED.value, str(len(record.value)).encode())
            smaller = _Record(
                record.frame, record.topic, record.key, None, [*record.headers, omitted]
            )
            try:
                await (await _send(producer, smaller))
            except (errors.KafkaError, OSError) as second:
                still_failed.append((smaller, second))
        return still_failed

    async def _raise_first(
        self, producer: AIOKafkaProducer, failed: list[tuple[_Record, BaseException]]
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


async def _send(producer: AIOKafkaProducer, record: _Record) -> asyncio.Future[Any]:
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
