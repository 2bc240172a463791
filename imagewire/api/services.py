"""What the routes share: connections to the stores, the live feed of verdicts, pictures, models.

Nothing here is opened before it is needed, so that the API starts, and says what is away, while the
stores do not answer. What blocks runs in threads of its own kind: a slow question of one person
must not wait in the same queue as the picture that another looks at.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Annotated, Any, Self, TypeVar

import aiokafka.errors
from aiokafka import AIOKafkaProducer
from fastapi import Depends, Request
from prometheus_client import CollectorRegistry

from imagewire.api.ban_desk import BanDesk
from imagewire.api.duplicates import Comparisons
from imagewire.api.figures import Figures, Kept
from imagewire.api.heat_maps import HeatMaps
from imagewire.api.json_values import rows_of
from imagewire.api.keys import Keys
from imagewire.api.looking import Looking
from imagewire.api.outcomes import Outcomes
from imagewire.api.pictures import Pictures
from imagewire.api.policy_in_force import PolicyInForce
from imagewire.api.policy_models import DriftShown
from imagewire.api.policy_trials import PolicyTrials
from imagewire.api.readiness import Readiness
from imagewire.api.review_desk import ReviewDesk
from imagewire.api.sql_questions import SqlQuestions
from imagewire.api.verdict_feed import VerdictFeed
from imagewire.api.waiting import soon
from imagewire.settings import Settings
from sinks.clickhouse.reader import ClickHouseReader
from sinks.kafka.reachable import connection_error
from sinks.qdrant.reader import VectorReader
from sinks.sink import SinkError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_DRIFT_SECONDS = 60.0
_TRY_AGAIN_SECONDS = 1.0
"""Between two attempts to reach a broker that is away."""


class Services:
    """One for each process of the API. An async context manager.

    Attributes:
        settings: as loaded; ClickHouse's user may be one that only reads.
        keys: who may ask.
        reader: ClickHouse, for questions that are to be streamed or take long: blocking, from any
            thread. Not the one of `query`.
        sql: statements of callers, so many at once.
        reviews: the queue of images that wait for people.
        figures: throughput, latency and lag of the last minutes.
        policy: the one in force.
        trials: checks policies, and compares them with what is stored.
        bans: the lists of known images.
        drift: what was found of it, for some minutes: it is a long question.
        vectors: Qdrant; there after `start`.
        looking: embeds pictures to search by.
        pictures: the bytes of stored images, and what may be shown of them.
        verdicts: the live feed of images.verdicts, for many readers.
        outcomes: what became of images that were just published.
        heat_maps: explains images, one at a time.
        comparisons: compares many images with each other, one question at a time.
        readiness: whether the stores answer.
        registry: metrics of this process.
        closing: is set when the process is to end; whatever answers for long ends then.

    Raises:
        ConfigurationError: a key of `api.keys` cannot be used.
    """

    vectors: VectorReader

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = Keys(settings.api.keys)
        self.registry = CollectorRegistry()
        self.closing = asyncio.Event()
        self.reader = ClickHouseReader(settings.clickhouse)
        self.sql = SqlQuestions(self.reader, settings.api.sql_at_once)
        self.looking = Looking(settings)
        self.pictures = Pictures(settings)
        self.heat_maps = HeatMaps(settings)
        self.comparisons = Comparisons()
        self.verdicts = VerdictFeed(settings.kafka)
        self.outcomes = Outcomes(settings.kafka)
        self._farewell: asyncio.Task[None] | None = None
        count = settings.api.queries
        self._asking = ThreadPoolExecutor(count, thread_name_prefix="query")
        self._turns = asyncio.Semaphore(count)
        self._readers: queue.SimpleQueue[ClickHouseReader] = queue.SimpleQueue()
        for _ in range(count):
            self._readers.put(ClickHouseReader(settings.clickhouse))
        self._producer: AIOKafkaProducer | None = None
        self._starting_producer = asyncio.Lock()
        self._no_producer: tuple[float, SinkError] | None = None
        self.readiness = Readiness(self)
        self.reviews = ReviewDesk(settings, self.asking, self.producer)
        self.figures = Figures(settings, self.query, self.reviews.length)
        self.policy = PolicyInForce(settings)
        self.trials = PolicyTrials(settings)
        self.bans = BanDesk(
            settings,
            self.query,
            self.producer,
            self.looking.embedding,
            lambda model, ids: self.vectors.vectors_of(model, ids),
        )
        self.drift: Kept[list[DriftShown]] = Kept(_DRIFT_SECONDS)

    async def start(self) -> None:
        """Make what belongs to the running loop. No store need be there."""
        self.vectors = VectorReader(self.settings.qdrant)
        self._farewell = asyncio.create_task(self._say_farewell())

    async def _say_farewell(self) -> None:
        # Streams would hold the process up, which waits for its answers to end.
        await self.closing.wait()
        self.verdicts.end()

    async def stop(self) -> None:
        """Close everything."""
        self.closing.set()
        if self._farewell is not None:
            await self._farewell
        await self.verdicts.close()
        await self.outcomes.close()
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()
        await self.pictures.close()
        await self.looking.close()
        await self.heat_maps.close()
        await self.comparisons.close()
        await self.vectors.close()
        await self.sql.close()
        await self.reviews.close()
        await self.figures.close()
        await self.policy.close()
        await self.trials.close()
        await asyncio.to_thread(self._asking.shutdown, cancel_futures=True)
        while not self._readers.empty():
            self._readers.get_nowait().close()
        self.reader.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def query(
        self, sql: str, params: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """The rows of one statement of the service's own that reads.

        Args:
            sql: `{name:Type}` stands for a parameter; never put what was sent into the text.

        Returns:
            Column name to value, as JSON has values: moments are RFC 3339 with milliseconds and Z.

        Raises:
            QueryError: answered as 503 where ClickHouse is away, else as 500.
        """
        return await self.asking(lambda reader: rows_of(reader.query(sql, params)))

    async def asking(self, ask: Callable[[ClickHouseReader], T]) -> T:
        """What `ask` returns, called in a thread with a reader to itself; at most `api.queries` at
        a time.

        Raises:
            Problem: 503, the others take too long: ClickHouse hangs, perhaps, and whoever waited
                for as many time-outs as there are before would hold the places of everybody.
        """

        def with_reader() -> T:
            # There are as many readers as threads.
            reader = self._readers.get_nowait()
            try:
                return ask(reader)
            finally:
                self._readers.put(reader)

        await soon(self._turns.acquire(), "ClickHouse")
        asked = asyncio.get_running_loop().run_in_executor(self._asking, with_reader)
        # Also if whoever asked has gone: the thread is busy until ClickHouse has answered.
        asked.add_done_callback(self._answered)
        return await asyncio.shield(asked)

    def _answered(self, asked: asyncio.Future[Any]) -> None:
        self._turns.release()
        if not asked.cancelled():
            asked.exception()  # taken, for the case that whoever asked has gone

    async def producer(self) -> AIOKafkaProducer:
        """A producer that waits for every replica (`acks=all`), started at its first use.

        Raises:
            TransientSinkError: the broker cannot be reached; answered as 503.
            PermanentSinkError: it lets nobody in with these settings.
        """
        async with self._starting_producer:
            if self._producer is None:
                if self._no_producer is not None:
                    when, error = self._no_producer
                    if time.monotonic() - when < _TRY_AGAIN_SECONDS:
                        # Whoever waited for the same attempt need not wait for one of their own.
                        raise type(error)(*error.args)
                self._producer = await self._started_producer()
            return self._producer

    async def _started_producer(self) -> AIOKafkaProducer:
        settings = self.settings.kafka
        producer = AIOKafkaProducer(**settings.producer_options())
        try:
            await producer.start()
        except (aiokafka.errors.KafkaError, OSError) as error:
            await producer.stop()
            where = f"no broker answers at {settings.bootstrap_servers}"
            told = await connection_error(settings, error, where)
            self._no_producer = (time.monotonic(), told)
            raise told from error
        except BaseException:  # whoever asked has gone
            await producer.stop()
            raise
        return producer


def services_of(request: Request) -> Services:
    """The services of the application that answers `request`."""
    services: Services = request.app.state.services
    return services


Shared = Annotated[Services, Depends(services_of)]
"""A parameter of a route: what the routes share."""
