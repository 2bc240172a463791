"""The bytes of an image that was analysed: fetched again, or read from Kafka again.

Imagewire keeps findings, not pictures, so whoever wants to see one goes back to where it came from.
An address in a row was written by a producer and is as hostile as it was the first time: it is
fetched under the same rules, limits and deadlines. What comes back may be another picture by now;
it is shown only if it has the SHA-256 that was analysed, or else findings and verdicts of one
picture would stand beside another.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from types import TracebackType
from typing import Literal, Self

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from imagewire.api.stored_images import StoredImage
from imagewire.api.work_thread import BusyError
from imagewire.settings import Settings
from operators.frame import Origin
from sinks.kafka.settings import KafkaSettings
from streams.fetch import Fetcher
from streams.fetched import FetchError, shown
from streams.records import frame_from_record

logger = logging.getLogger(__name__)

PictureProblem = Literal["gone", "changed", "forbidden", "unreachable", "unreadable"]

_RECORD_SECONDS = 5.0
_FETCHES_AT_ONCE = 8
_MOST_WAITING = 64


class PictureError(Exception):
    """The picture cannot be shown: the message says why.

    Attributes:
        problem: `gone`: it is no longer where it was; `changed`: another picture is there;
            `forbidden`: it may not be fetched; `unreachable`: it may work later; `unreadable`: it
            cannot be decoded.
    """

    def __init__(self, problem: PictureProblem, detail: str) -> None:
        super().__init__(detail)
        self.problem = problem


class PictureSources:
    """Gets the bytes of images. An async context manager."""

    def __init__(self, settings: Settings, fetcher: Fetcher | None = None) -> None:
        """`fetcher` is used instead of one by the settings."""
        self._fetcher = fetcher or Fetcher(settings.fetch)
        self._records = _RecordReader(settings.kafka)
        self._turns = asyncio.Semaphore(_FETCHES_AT_ONCE)
        self._waiting = 0

    async def __aenter__(self) -> Self:
        await self._fetcher.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._records.close()
        await self._fetcher.__aexit__(kind, error, traceback)

    async def content(self, image: StoredImage) -> bytes:
        """The image's encoded bytes, which are those that were analysed.

        Raises:
            PictureError: they cannot be had.
            BusyError: too many pictures are being fetched.
        """
        if self._waiting >= _MOST_WAITING:
            raise BusyError("pictures from where they came from", self._waiting, 2)
        self._waiting += 1
        try:
            async with self._turns:
                content = await (self._fetched(image) if image.uri else self._published(image))
        finally:
            self._waiting -= 1
        # Megabytes take milliseconds, which the event loop should not wait for.
        digest = await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest())
        if image.content_id and digest != image.content_id:
            raise PictureError(
                "changed",
                f"what is at '{shown(image.uri)}' now is not the picture that was analysed; "
                "publish it again to have it looked at",
            )
        return content

    async def _fetched(self, image: StoredImage) -> bytes:
        try:
            return await self._fetcher.fetch(image.uri)
        except FetchError as error:
            problem: PictureProblem = "gone"
            if error.reason in ("forbidden", "bad-uri"):
                problem = "forbidden"
            elif error.transient or error.reason == "timeout":
                problem = "unreachable"
            raise PictureError(problem, str(error)) from error

    async def _published(self, image: StoredImage) -> bytes:
        where = f"{image.topic}/{image.partition}/{image.offset}"
        record = await self._records.record(image.topic, image.partition, image.offset)
        if record is None:
            raise PictureError(
                "gone",
                f"the record {where} that held the picture is no longer on Kafka; the topic's "
                "retention decides how long pictures can be shown",
            )
        origin = Origin(
            record.topic,
            record.partition,
            record.offset,
            record.timestamp or 0,
            record.key,
            record.value,
            tuple(record.headers),
        )
        frame = await asyncio.to_thread(frame_from_record, origin)
        # A topic that was deleted and made anew counts from 0 again.
        if frame.content is None or frame.image_id != image.key.image_id:
            raise PictureError("gone", f"the record {where} holds another image by now")
        return frame.content


class _RecordReader:
    """Reads single records of the image topics, one at a time, over one connection."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._consumer: AIOKafkaConsumer | None = None
        self._lock = asyncio.Lock()

    async def record(self, topic: str, partition: int, offset: int) -> ConsumerRecord | None:
        """The record, or `None` if it has expired.

        Raises:
            PictureError: the broker does not answer.
        """
        topics = self._settings.topics
        if topic not in (topics.images, topics.bulk) or partition < 0 or offset < 0:
            return None
        async with self._lock:
            try:
                async with asyncio.timeout(_RECORD_SECONDS):
                    consumer = await self._ready()
                    place = TopicPartition(topic, partition)
                    consumer.assign([place])
                    consumer.seek(place, offset)
                    record = await consumer.getone(place)
            except TimeoutError:
                # Some brokers give no answer at all for an offset that has expired.
                await self._drop()
                return None
            except (KafkaError, OSError) as error:
                await self._drop()
                raise PictureError(
                    "unreachable",
                    f"Kafka at {self._settings.bootstrap_servers}, which has the picture, does "
                    f"not answer: {error}",
                ) from error
            except asyncio.CancelledError:
                await self._drop()
                raise
        return record if record.offset == offset else None

    async def close(self) -> None:
        async with self._lock:
            await self._drop()

    async def _ready(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                fetch_max_wait_ms=50,
                **self._settings.client_options(),
            )
            self._consumer = consumer
            await consumer.start()
        return self._consumer

    async def _drop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        try:
            async with asyncio.timeout(_RECORD_SECONDS):
                await consumer.stop()
        except (TimeoutError, KafkaError, OSError) as error:
            logger.debug("closing the consumer that reads pictures: %r", error)
