"""Topics as they grow: one consumer without a group that tells every record to whoever listens.

One for the whole process and not one for each listener: a hundred pages that watch cost the broker
as much as one. It starts where the topics end, goes on where it was after the broker was away, and
rests when nobody has listened for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError

from sinks.kafka.reachable import connection_error
from sinks.kafka.settings import KafkaSettings
from sinks.sink import SinkError, TransientSinkError

logger = logging.getLogger(__name__)

_REST_AFTER_SECONDS = 60.0
_PAUSE_SECONDS = 1.0
_PATIENCE_SECONDS = 5.0
_AT_ONCE = 500
Listen = Callable[[ConsumerRecord], None]


class KafkaTail:
    """Follows topics while there are listeners.

    Attributes:
        positions: of each partition the offset of the next record; what is lower was told, or was
            there before.
    """

    def __init__(self, settings: KafkaSettings, topics: Sequence[str]) -> None:
        self._settings = settings
        self._topics = tuple(topics)
        self._listeners: set[Listen] = set()
        self._task: asyncio.Task[None] | None = None
        self._following: asyncio.Future[None] | None = None
        self._starting = asyncio.Lock()
        self._consumer: AIOKafkaConsumer | None = None
        self.positions: dict[TopicPartition, int] = {}

    async def ready(self) -> None:
        """Return when every record published from now on will be told.

        Raises:
            SinkError: the broker cannot be reached, or lets nobody in.
        """
        async with self._starting:
            if self._task is None or self._task.done():
                self._following = asyncio.get_running_loop().create_future()
                self.positions.clear()
                self._task = asyncio.create_task(self._run(), name=f"follow {self._topics}")
        assert self._following is not None
        await asyncio.shield(self._following)

    async def ends(self) -> dict[TopicPartition, int]:
        """Of each partition that is followed the offset that its next record will have, as the
        broker knows it.

        Raises:
            TransientSinkError: it does not answer.
        """
        try:
            if self._consumer is None:
                raise KafkaConnectionError("it is away")
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return dict(await self._consumer.end_offsets(list(self.positions)))
        except (KafkaError, OSError, TimeoutError) as error:
            raise TransientSinkError(
                f"{self._settings.bootstrap_servers} does not say where "
                f"{', '.join(self._topics)} ends: {error!r}"
            ) from error

    def listen(self, listen: Listen) -> None:
        """Have `listen` called with every record, in the event loop; it must not block or raise."""
        self._listeners.add(listen)

    def leave(self, listen: Listen) -> None:
        """Call `listen` no more."""
        self._listeners.discard(listen)

    async def close(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        assert self._following is not None
        following = self._following
        try:
            consumer = await self._connected()
        except SinkError as error:
            following.set_exception(error)
            following.exception()  # whoever asked may be gone: that is no reason to warn
            return
        except BaseException:
            following.cancel()
            raise
        while True:
            try:
                await self._begin(consumer)
                self._consumer = consumer
                if not following.done():
                    following.set_result(None)
                if await self._follow(consumer):
                    return
            except (KafkaError, OSError, SinkError) as error:
                logger.warning("%s cannot be followed now: %r", ", ".join(self._topics), error)
            finally:
                self._consumer = None
                await consumer.stop()
            consumer = await self._again()

    async def _connected(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            *self._topics,
            auto_offset_reset="latest",
            enable_auto_commit=False,
            fetch_max_wait_ms=100,
            metadata_max_age_ms=30_000,
            **self._settings.client_options(),
        )
        try:
            await consumer.start()
        except (KafkaError, OSError) as error:
            await consumer.stop()
            where = f"no broker answers at {self._settings.bootstrap_servers}"
            raise await connection_error(self._settings, error, where) from error
        except BaseException:
            await consumer.stop()
            raise
        return consumer

    async def _again(self) -> AIOKafkaConsumer:
        while True:
            await asyncio.sleep(_PAUSE_SECONDS)
            try:
                return await self._connected()
            except SinkError:
                # It was told when it began to be away.
                continue

    async def _begin(self, consumer: AIOKafkaConsumer) -> None:
        """Go on where it was, and begin at the end of what was never followed. What ends before
        that was made anew while the broker was away: all of it is new."""
        known = [place for place in consumer.assignment() if place in self.positions]
        ends = await consumer.end_offsets(known) if known else {}
        for place in consumer.assignment():
            if place in self.positions and self.positions[place] > ends[place]:
                await consumer.seek_to_beginning(place)
                self.positions[place] = await consumer.position(place)
            elif place in self.positions:
                consumer.seek(place, self.positions[place])
            else:
                self.positions[place] = await consumer.position(place)

    async def _follow(self, consumer: AIOKafkaConsumer) -> bool:
        """Tell records until nobody listens; returns that."""
        heard = time.monotonic()
        while True:
            for place in consumer.assignment() - self.positions.keys():
                # A partition that was added since: all that it has is new.
                await consumer.seek_to_beginning(place)
                self.positions[place] = await consumer.position(place)
            records = await consumer.getmany(timeout_ms=500, max_records=_AT_ONCE)
            for place, batch in records.items():
                for record in batch:
                    self.positions[place] = record.offset + 1
                    for listen in tuple(self._listeners):
                        listen(record)
            if self._listeners:
                heard = time.monotonic()
            elif time.monotonic() - heard > _REST_AFTER_SECONDS:
                return True
