"""The Faust application: one agent for each lane's topic, acknowledging by hand.

Faust brings the consumer group, rebalancing and commits. What it is not left to do is batching and
acknowledging: `Stream.take` acknowledges a whole batch even when its body raises, and an exception
that escapes an agent acknowledges the event. So agents here only hand records over, which reach
them in the blocks of `streams.block_consumer`, and `streams.ledger` says when each may be
acknowledged.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import faust
from aiokafka.errors import KafkaError
from faust.auth import SASLCredentials, SSLCredentials

from operators.frame import Lane, Origin
from sinks.kafka.reachable import connection_error
from sinks.kafka.settings import KafkaSettings
from streams.block_consumer import FAUST_LOGGER, Block, BlockConsumer, BlockTransport
from streams.intake import Intake
from streams.settings import StreamSettings

logger = logging.getLogger(__name__)

_TURN_SECONDS = 0.001
"""For which an agent takes records before others on the event loop have their turn."""

_LOOK_EVERY_SECONDS = 0.5

RecordHandler = Callable[[Origin, Lane, Callable[[], object]], Awaitable[None]]
"""Called for each record in the order of delivery: its origin, its topic's lane, and what
acknowledges it."""


class ImageStream:
    """Consumes the image topics in a Faust app and hands each record to `handle`."""

    def __init__(
        self,
        kafka: KafkaSettings,
        stream: StreamSettings,
        *,
        handle: RecordHandler,
        drain: Callable[[], Awaitable[object]],
        ahead: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """
        Args:
            handle: takes a record; may wait, which pauses intake. Must not raise.
            drain: finishes what is in flight within a bounded time; awaited before partitions
                are given up, so that their offsets are committed first.
            ahead: seconds of work on live images that is ready to be done; the more, the less
                often records are fetched, and the more at once.
        """
        self._kafka = kafka
        self._handle = handle
        self._failure: asyncio.Future[None] | None = None
        self._stopping = False
        self._intake = Intake(kafka.bootstrap_servers)
        self.app = _build_app(kafka, stream, drain, ahead)
        for topic, lane in ((kafka.topics.images, Lane.LIVE), (kafka.topics.bulk, Lane.BULK)):
            self._add_agent(topic, lane)

    def _add_agent(self, topic_name: str, lane: Lane) -> None:
        topic = self.app.topic(
            topic_name, key_serializer="raw", value_serializer="raw", internal=False
        )

        async def take(stream: Any) -> None:
            async for event in stream.noack().events():
                block: Block = event.message
                try:
                    await self._take(block, lane)
                except Exception as error:
                    # Were it to escape, Faust would acknowledge the event and lose it.
                    logger.exception("taking records from %s failed", topic_name)
                    self._fail(error)
                    await asyncio.Event().wait()
                finally:
                    block.release()

        self.app.agent(topic, name=f"take-{lane}")(take)

    async def _take(self, block: Block, lane: Lane) -> None:
        records = block.records
        turn_ends = time.perf_counter() + _TURN_SECONDS
        while records and not block.interrupted:
            record = records.popleft()
            acknowledge = functools.partial(block.acknowledge, record.offset)
            await self._handle(_origin(record), lane, acknowledge)
            if time.perf_counter() > turn_ends:
                await asyncio.sleep(0)
                turn_ends = time.perf_counter() + _TURN_SECONDS

    def _fail(self, error: Exception) -> None:
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)

    async def start(self) -> None:
        """Join the consumer group and begin to take records.

        Raises:
            TransientSinkError, PermanentSinkError: no broker can be reached, or none lets us in.
        """
        self._failure = asyncio.get_running_loop().create_future()
        self.app.finalize()
        try:
            await self.app.start()
        except (KafkaError, OSError) as error:
            where = f"joining the consumer group at {self._kafka.bootstrap_servers}"
            raise await connection_error(self._kafka, error, where) from error

    async def watch(self) -> None:
        """Wait until `stop` is called; raises what ended the stream before."""
        if self._failure is None:
            raise RuntimeError("ImageStream.start() was not called")
        while not self._failure.done():
            if self._stopping:
                return
            if self.app.crashed or self.app.should_stop:
                reason = self.app.crash_reason
                raise RuntimeError(f"the Kafka consumer stopped: {reason!r}") from reason
            self._look_at_intake()
            await asyncio.wait([self._failure], timeout=_LOOK_EVERY_SECONDS)
        await self._failure

    async def stop(self) -> None:
        """Commit what was acknowledged and leave the group."""
        self._stopping = True
        await self.app.stop()

    @property
    def hindrance(self) -> str | None:
        """Why no image is taken at the moment, if something is in the way."""
        return self._intake.hindrance

    def _look_at_intake(self) -> None:
        consumer = cast(BlockConsumer, self.app.consumer)._thread._consumer
        if consumer is None:
            return
        topics = self._kafka.topics
        # Faust asks this snapshot too; a topic that was deleted has no partitions in it.
        known = consumer._coordinator._metadata_snapshot
        self._intake.look(
            consumer._coordinator.coordinator_id is not None,
            {topic: known[topic] for topic in (topics.images, topics.bulk) if topic in known},
        )

    @property
    def leads(self) -> bool:
        """Whether this worker has the first partition of live images, as one of the group has:
        what is to be done once is done there."""
        first = (self._kafka.topics.images, 0)
        return any((tp.topic, tp.partition) == first for tp in self.app.consumer.assignment())

    def lag(self, positions: dict[tuple[str, int], int]) -> dict[tuple[str, int], int]:
        """Records not yet acknowledged in each assigned partition.

        Args:
            positions: the next offset to acknowledge, by topic and partition.
        """
        found = {}
        consumer = self.app.consumer
        for tp in consumer.assignment():
            position = positions.get((tp.topic, tp.partition))
            try:
                highwater = consumer.highwater(tp)
            except (AssertionError, AttributeError):
                # The consumer lives in a thread of its own, and has just lost this partition.
                continue
            if position is not None and highwater is not None:
                found[(tp.topic, tp.partition)] = max(highwater - position, 0)
        return found


class _App(faust.App):
    logger = FAUST_LOGGER
    drain: Callable[[], Awaitable[object]]
    ahead: Callable[[], float]
    fetch_max_wait: float

    async def _consumer_wait_empty(self, consumer: Any, logger: Any) -> None:
        # Called before partitions are given up, at a rebalance and at the end. Faust's own way is
        # to wait without a limit until every event is acknowledged.
        await self.drain()
        await consumer.commit_now()

    def _create_directories(self) -> None:
        """Faust's are for tables. There are none here, and a killed worker would leave them."""

    def _new_transport(self) -> Any:
        return BlockTransport(self.conf.broker_consumer, self)


def _build_app(
    kafka: KafkaSettings,
    stream: StreamSettings,
    drain: Callable[[], Awaitable[object]],
    ahead: Callable[[], float],
) -> _App:
    servers = kafka.client_options()["bootstrap_servers"]
    app = _App(
        stream.group,
        broker=";".join(f"kafka://{server}" for server in servers),
        broker_credentials=_credentials(kafka),
        autodiscover=False,
        store="memory://",
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        broker_session_timeout=stream.session_timeout,
        broker_heartbeat_interval=stream.session_timeout / 4,
        broker_request_timeout=max(40.0, stream.session_timeout * 2),
        # A rebalance waits for members to drain, so give them that long and a little more.
        broker_rebalance_timeout=stream.drain_timeout + stream.session_timeout,
        broker_commit_interval=stream.commit_interval,
        consumer_auto_offset_reset="earliest",
        # Partitions that are added are noticed within this time; by default it is 5 minutes.
        consumer_metadata_max_age_ms=30_000,
        # A partition's fetch; larger records still arrive, one at a time (KIP-74).
        consumer_max_fetch_size=4 * 1024 * 1024,
        # Turning more records into objects at once would hold up the event loop.
        broker_max_poll_records=500,
        # Of blocks, of which each partition has one at most. Records wait in the broker, not here:
        # intake is bounded by frames in flight.
        stream_buffer_maxsize=10_000,
        stream_wait_empty=False,
    )
    app.drain = drain
    app.ahead = ahead
    app.fetch_max_wait = stream.fetch_max_wait
    return app


def _credentials(kafka: KafkaSettings) -> Any:
    """Faust's credentials from the settings that aiokafka's clients use."""
    options = kafka.client_options()
    protocol = options.get("security_protocol", "PLAINTEXT")
    context: ssl.SSLContext | None = options.get("ssl_context")
    if protocol == "SSL":
        return SSLCredentials(context)
    if protocol in ("SASL_PLAINTEXT", "SASL_SSL"):
        if options["sasl_mechanism"] == "OAUTHBEARER":
            return faust.auth.OAuthCredentials(
                oauth_cb=options["sasl_oauth_token_provider"], ssl_context=context
            )
        return SASLCredentials(
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            mechanism=options["sasl_mechanism"],
            ssl_context=context,
        )
    return None


def _origin(record: Any) -> Origin:
    """Where an aiokafka record came from."""
    timestamp = record.timestamp
    return Origin(
        record.topic,
        record.partition,
        record.offset,
        -1 if timestamp is None else timestamp,
        record.key,
        record.value,
        tuple(record.headers),
    )
