"""The Faust application: one agent for each lane's topic, acknowledging by hand.

Faust brings the consumer group, rebalancing and commits. What it is not left to do is batching and
acknowledging: `Stream.take` acknowledges a whole batch even when its body raises, and an exception
that escapes an agent acknowledges the event. So agents here only hand records over, and
`streams.ledger` says when each may be acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any, cast

import faust
from aiokafka.errors import KafkaError
from faust.auth import SASLCredentials, SSLCredentials
from faust.transport.drivers.aiokafka import (
    AIOKafkaConsumerThread,
)
from faust.transport.drivers.aiokafka import (
    Consumer as AIOKafkaFaustConsumer,
)
from faust.transport.drivers.aiokafka import (
    Transport as AIOKafkaFaustTransport,
)

from operators.frame import Lane, Origin
from sinks.kafka.reachable import connection_error
from sinks.kafka.settings import KafkaSettings
from streams.intake import Intake
from streams.renewed_topic import ForgetfulOffsets, commit_what_exists
from streams.settings import StreamSettings

logger = logging.getLogger(__name__)

# Faust and mode name a service's logger by the module of its class. Those of the classes below tell
# of Faust's affairs (starting, stopping), so they belong with Faust's.
_FAUST_LOGGER = logging.getLogger("faust.imagewire")

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
    ) -> None:
        """
        Args:
            handle: takes a record; may wait, which pauses intake. Must not raise.
            drain: finishes what is in flight within a bounded time; awaited before partitions
                are given up, so that their offsets are committed first.
        """
        self._kafka = kafka
        self._handle = handle
        self._failure: asyncio.Future[None] | None = None
        self._stopping = False
        self._intake = Intake(kafka.bootstrap_servers)
        self._datadir = tempfile.TemporaryDirectory(prefix="imagewire-faust-")
        self.app = _build_app(kafka, stream, drain, self._datadir.name)
        for topic, lane in ((kafka.topics.images, Lane.LIVE), (kafka.topics.bulk, Lane.BULK)):
            self._add_agent(topic, lane)

    def _add_agent(self, topic_name: str, lane: Lane) -> None:
        topic = self.app.topic(
            topic_name, key_serializer="raw", value_serializer="raw", internal=False
        )

        async def take(stream: Any) -> None:
            async for event in stream.noack().events():
                try:
                    origin = _origin(event.message)
                    _empty(event)
                    await self._handle(origin, lane, event.ack)
                except Exception as error:
                    # Were it to escape, Faust would acknowledge the event and lose it.
                    logger.exception("taking a record from %s failed", topic_name)
                    self._fail(error)
                    await asyncio.Event().wait()

        self.app.agent(topic, name=f"take-{lane}")(take)

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
            await asyncio.wait([self._failure], timeout=0.5)
        await self._failure

    async def stop(self) -> None:
        """Commit what was acknowledged and leave the group."""
        self._stopping = True
        await self.app.stop()
        self._datadir.cleanup()

    @property
    def hindrance(self) -> str | None:
        """Why no image is taken at the moment, if something is in the way."""
        return self._intake.hindrance

    def _look_at_intake(self) -> None:
        consumer = cast(_LedgerConsumer, self.app.consumer)._thread._consumer
        if consumer is None:
            return
        topics = self._kafka.topics
        # Faust asks this snapshot too; a topic that was deleted has no partitions in it.
        known = consumer._coordinator._metadata_snapshot
        self._intake.look(
            consumer._coordinator.coordinator_id is not None,
            {topic: known[topic] for topic in (topics.images, topics.bulk) if topic in known},
        )

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


def _empty(event: Any) -> None:
    """Let go of the record's bytes, which the frame has now.

    An acknowledgement may wait long for a slow record before it, and it needs the offset alone.
    """
    message = event.message
    event.key = event.value = message.key = message.value = None
    event.headers = message.headers = None


class _PromptConsumerThread(AIOKafkaConsumerThread):
    """Asks the broker to answer empty fetches soon: Faust fixes 1.5 s (faust-streaming 0.15.3)."""

    logger = _FAUST_LOGGER

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = cast(_App, self.app).fetch_max_wait_ms
        return consumer

    async def _commit(self, offsets: Any) -> bool:
        return await commit_what_exists(super()._commit, offsets, self._is_gone)

    def _is_gone(self, topic: str) -> bool:
        consumer = self._consumer
        return consumer is not None and consumer._coordinator._metadata_snapshot.get(topic) == 0


class _LedgerConsumer(AIOKafkaFaustConsumer):
    """Commits what the ledger acknowledged: everything up to the last acknowledged offset.

    Faust looks for gaps itself, since it expects acknowledgements in any order. Where nothing is
    committed yet it does not see them, and a gap that a compacted topic has after its offset 0
    stops its commits for good; the ledger's order makes all of that needless.
    """

    logger = _FAUST_LOGGER

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._read_offset = ForgetfulOffsets()
        self._committed_offset = ForgetfulOffsets()

    def _new_consumer_thread(self) -> _PromptConsumerThread:
        return _PromptConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _new_offset(self, tp: Any) -> int | None:
        acknowledged = self._acked[tp]
        if not acknowledged:
            return None
        position: int = acknowledged[-1] + 1
        acknowledged.clear()
        self._acked_index[tp].clear()
        return position

    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
        """Offsets that do not exist need no acknowledgement."""

    async def on_partitions_revoked(self, revoked: set[Any]) -> None:
        # Faust forgets here which offsets were acknowledged since the last commit.
        await self.commit_now()
        await super().on_partitions_revoked(revoked)

    async def commit_now(self) -> None:
        """Commit all that is acknowledged at this moment."""
        # A commit under way has already chosen its offsets, and `commit` would only wait for it.
        await self.maybe_wait_for_commit_to_finish()
        await self.commit()


class _LedgerTransport(AIOKafkaFaustTransport):
    Consumer = _LedgerConsumer


class _App(faust.App):
    logger = _FAUST_LOGGER
    drain: Callable[[], Awaitable[object]]
    fetch_max_wait_ms: int

    async def _consumer_wait_empty(self, consumer: Any, logger: Any) -> None:
        # Called before partitions are given up, at a rebalance and at the end. Faust's own way is
        # to wait without a limit until every event is acknowledged.
        await self.drain()
        await consumer.commit_now()

    def _new_transport(self) -> Any:
        return _LedgerTransport(self.conf.broker_consumer, self)


def _build_app(
    kafka: KafkaSettings,
    stream: StreamSettings,
    drain: Callable[[], Awaitable[object]],
    datadir: str,
) -> _App:
    servers = kafka.client_options()["bootstrap_servers"]
    app = _App(
        stream.group,
        broker=";".join(f"kafka://{server}" for server in servers),
        broker_credentials=_credentials(kafka),
        autodiscover=False,
        store="memory://",
        datadir=datadir,
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
        # Records wait in the broker, not here: intake is bounded by frames in flight.
        stream_buffer_maxsize=16,
        stream_wait_empty=False,
    )
    app.drain = drain
    app.fetch_max_wait_ms = max(int(stream.fetch_max_wait * 1000), 1)
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


def _origin(message: Any) -> Origin:
    headers = message.headers or ()
    if isinstance(headers, dict):
        headers = headers.items()
    timestamp = message.timestamp
    return Origin(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp_ms=-1 if timestamp is None else round(timestamp * 1000),
        key=message.key,
        value=message.value,
        headers=tuple((name, value) for name, value in headers),
    )
