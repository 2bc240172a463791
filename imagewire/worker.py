"""A worker: the stream, the operators and the sinks put together, from start to clean stop.

Start refuses what cannot work (settings, models, policy) before a record is taken, and waits for
what may come later (broker, stores). Stop takes nothing new, finishes and acknowledges what is in
flight within the drain timeout, and closes the stores.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import stamina
import torch
from prometheus_client import GCCollector, PlatformCollector, ProcessCollector

from imagewire.bans_in_worker import BansInWorker
from imagewire.http_endpoint import Health, HttpEndpoint
from imagewire.lag_in_worker import LagInWorker
from imagewire.machine_metrics import MachineMetrics
from imagewire.model_copies import copies_of_models
from imagewire.model_health import ModelHealth
from imagewire.people_in_worker import PeopleInWorker
from imagewire.policy_in_worker import PolicyInWorker
from imagewire.settings import ConfigurationError, Settings
from models.device import choose_device, limit_memory
from models.processors import available_processors
from operators.chain import OperatorChain
from operators.decode import make_decoder
from operators.embedding import EmbeddingOperator
from operators.near_identical import NearIdentical
from operators.operator import Operator
from operators.redact import Redactor
from operators.run_conditions import RunConditions
from operators.terms import TermLists
from sinks.clickhouse.sink import ClickHouseSink
from sinks.kafka.sink import KafkaSink
from sinks.kafka.topics import ensure_topics
from sinks.qdrant.sink import QdrantSink
from sinks.sink import Sink, TransientSinkError
from streams.app import ImageStream
from streams.fetch import Fetcher
from streams.metrics import Metrics
from streams.pipeline import Pipeline
from streams.reuse import Reuse
from streams.service_time import ServiceTimes
from streams.together import run_together

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Worker:
    """One worker process. `run` is its life."""

    def __init__(self, settings: Settings) -> None:
        """
        Raises:
            ConfigurationError, models.ModelError, operators.OperatorError,
            operators.policy.PolicyError: what is configured cannot work.
        """
        self._settings = settings
        self._metrics = Metrics()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._metrics.registry)
        self._status = "starting"
        self._waiting_for: dict[str, str] = {}
        self._stop = asyncio.Event()
        self._pipeline: Pipeline | None = None
        self._people = PeopleInWorker(settings, self._metrics)
        self._bans = BansInWorker(settings, self._metrics)
        self._service_times = ServiceTimes()
        self._image_stream: ImageStream | None = None
        threads = settings.models.threads or available_processors()
        torch.set_num_threads(threads)
        try:
            self._device = choose_device(settings.models.device, settings.models.precision)
        except (ValueError, RuntimeError) as error:
            raise ConfigurationError(f"models: {error}") from error
        if settings.models.memory_share is not None:
            limit_memory(self._device, settings.models.memory_share)
        self._policies = PolicyInWorker(settings, self._metrics)
        self._terms = TermLists(settings.terms)

        def chain(
            operators: list[Operator], conditions: RunConditions, near: NearIdentical | None
        ) -> OperatorChain:
            return OperatorChain(
                operators,
                self._policies.current,
                self._observe,
                near,
                known_images=self._bans.known_images,
                conditions=conditions,
                saved=self._metrics.spared,
                terms=self._terms,
                redactor=Redactor(settings.redaction),
            )

        self._chain, self._conditions = copies_of_models(settings, self._device, threads, chain)
        self._metrics.registry.register(MachineMetrics(self._device, self._chain.count))
        self._model_health = ModelHealth(
            settings,
            self._metrics.registry,
            self._metrics.feed,
            lambda: self._image_stream is not None and self._image_stream.leads,
        )
        self._metrics.operators = tuple(operator.name for operator in self._chain.operators)
        self._policies.on_change(self._chain.use_policy)
        self._chain.on_decided = self._people.first
        self.endpoint = HttpEndpoint(settings.http, self._metrics.registry, self.health)

    def stop(self) -> None:
        """Begin a clean stop."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    def health(self) -> Health:
        """What `/healthz` says."""
        detail = dict(self._waiting_for)
        status = self._status
        if self._pipeline is not None:
            detail.update(self._pipeline.troubles())
            detail.update(self._policies.troubles())
            detail.update(self._people.troubles())
            detail.update(self._bans.troubles())
            if self._terms.trouble is not None:
                detail["terms"] = self._terms.trouble
            if self._image_stream is not None and (hindrance := self._image_stream.hindrance):
                detail["intake"] = hindrance
            if status == "ok" and detail:
                status = "degraded"
        return Health(
            status,
            detail,
            in_flight=self._pipeline.ledger.in_flight if self._pipeline else 0,
            models=self._chain.model_versions(),
            policy=self._policies.current.version,
        )

    async def run(self) -> None:
        """Work until `stop` is called.

        Raises:
            ConfigurationError and the errors of the constructor: refused at start.
            Exception: what ended the stream; nothing that was not acknowledged is lost.
        """
        settings = self._settings
        async with AsyncExitStack() as stack:
            if settings.http.enabled:
                await self.endpoint.start()
                stack.push_async_callback(self.endpoint.stop)
            if not await self._unless_stopped(self._load_models(stack)):
                return
            sinks = self._sinks()
            if not await self._unless_stopped(self._open_stores(sinks, stack)):
                return
            if not await self._follow_topics(stack):
                return
            fetcher = await stack.enter_async_context(Fetcher(settings.fetch))
            limits = settings.decode.limits(settings.fetch.max_bytes)
            decoder = make_decoder(
                self._device,
                limits,
                settings.decode.threads,
                settings.decode.isolation,
                least=self._chain.least_size() if settings.decode.reduce == "auto" else None,
            )
            stack.callback(decoder.close)
            self._people.forgetting.reuse = reuse = self._reuse()
            self._pipeline = Pipeline(
                fetcher=fetcher,
                decoder=decoder,
                chain=self._chain,
                sinks=self._people.forgetting.guarded(sinks),
                metrics=self._metrics,
                stream=settings.stream,
                batch=settings.batch,
                fetch_concurrency=settings.fetch.concurrency,
                reuse=reuse,
                service_times=self._service_times,
                batches_at_once=self._chain.count,
                decoded_at_once=settings.decode.threads or available_processors(),
                known=self._chain if settings.bans.enabled else None,
            )
            await self._stream(self._pipeline)

    async def _follow_topics(self, stack: AsyncExitStack) -> bool:
        """Know the policy, people's decisions and bans before the first image, and keep up with
        them; returns whether there was no stop meanwhile."""
        self._beside(self._people.run(), "people", stack)
        self._beside(self._bans.run(), "bans", stack)
        self._beside(self._policies.run(), "policy", stack)
        self._beside(self._terms.watch(), "terms", stack)
        for known in (self._know_policy, self._know_people, self._know_bans):
            if not await self._unless_stopped(known()):
                return False
        return True

    async def _load_models(self, stack: AsyncExitStack) -> None:
        # In a thread: loading takes seconds that the endpoint should not be silent for.
        with ThreadPoolExecutor(1, "load") as thread:
            await asyncio.get_running_loop().run_in_executor(thread, self._chain.setup)
        stack.callback(self._chain.close)
        # What is loaded stays. Without it, each full collection walks through the modules' several
        # hundred thousand objects, with the interpreter's lock held.
        gc.collect()
        gc.freeze()
        for operator in self._chain.operators:
            for model in operator.model_versions().values():
                self._metrics.model_info.labels(operator.name, model).set(1)
        logger.info(
            "models on %s in %s: %s",
            self._device.torch_device,
            str(self._device.dtype).removeprefix("torch."),
            ", ".join(self._chain.model_versions().values()) or "none",
        )

    def _reuse(self) -> Reuse | None:
        reuse = self._settings.reuse
        if not reuse.identical:
            return None
        if not self._chain.depends_on_content_only:
            logger.info(
                "findings of identical images are not reused: %s may depend on more than the image",
                ", ".join(
                    operator.name
                    for operator in self._chain.operators
                    if not operator.depends_on_content_only
                ),
            )
            return None
        if self._conditions.depend_on == "frame":
            logger.info(
                "findings of identical images are not reused: whether an operator looks at one "
                "depends on its metadata (operators.….when)"
            )
            return None
        by_feed = self._conditions.depend_on == "feed"
        return Reuse(reuse.entries, reuse.max_bytes, by_feed=by_feed)

    def _sinks(self) -> list[Sink]:
        settings = self._settings
        sinks: list[Sink] = [KafkaSink(settings.kafka)]
        if settings.clickhouse.enabled:
            sinks.append(ClickHouseSink(settings.clickhouse))
        if settings.qdrant.enabled:
            for operator in self._chain.operators:
                if isinstance(operator, EmbeddingOperator):
                    model = operator.model_versions()[operator.name]
                    sinks.append(QdrantSink(settings.qdrant, model, operator.dimension))
        return sinks

    async def _open_stores(self, sinks: list[Sink], stack: AsyncExitStack) -> None:
        for sink in sinks:
            stack.push_async_callback(sink.close)
        # Side by side, so that whoever brings things up learns at once of all that is missing.
        await run_together(
            {f"open {number} {sink.name}": self._open(sink) for number, sink in enumerate(sinks)}
        )

    async def _open(self, sink: Sink) -> None:
        if isinstance(sink, KafkaSink):
            created = await self._when_ready(
                sink.name, functools.partial(ensure_topics, self._settings.kafka)
            )
            if created:
                logger.info("created topics: %s", ", ".join(created))
        await self._when_ready(sink.name, sink.open)

    async def _when_ready(self, name: str, action: Callable[[], Awaitable[T]]) -> T:
        """Do `action`, trying again while the store is away; `/healthz` names it meanwhile."""

        def away(error: Exception) -> bool:
            if not isinstance(error, TransientSinkError):
                return False
            if name not in self._waiting_for:
                logger.warning("waiting for %s: %s", name, error)
            self._waiting_for[name] = str(error)
            return True

        async for attempt in stamina.retry_context(
            on=away, attempts=None, timeout=None, wait_initial=0.2, wait_max=10.0
        ):
            with attempt:
                result = await action()
        self._waiting_for.pop(name, None)
        return result

    async def _know_people(self) -> None:
        self._waiting_for["people"] = "reading what people decided, and what was erased"
        await self._people.ready()
        self._waiting_for.pop("people", None)

    async def _know_policy(self) -> None:
        self._waiting_for["policy"] = "looking for a published policy"
        await self._policies.ready()
        self._waiting_for.pop("policy", None)

    async def _know_bans(self) -> None:
        self._waiting_for["bans"] = "reading the banlists"
        await self._bans.ready()
        self._waiting_for.pop("bans", None)

    @staticmethod
    def _beside(work: Coroutine[Any, Any, None], name: str, stack: AsyncExitStack) -> None:
        """Run `work` until the worker ends, beside the stream."""
        task = asyncio.create_task(work, name=name)

        async def end() -> None:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.error("%s ended early", name, exc_info=error)

        stack.push_async_callback(end)

    async def _unless_stopped(self, work: Awaitable[None]) -> bool:
        """Do `work`, giving up when asked to stop; returns whether it was done."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
            return False
        task.result()
        return True

    async def _stream(self, pipeline: Pipeline) -> None:
        stream = ImageStream(
            self._settings.kafka,
            self._settings.stream,
            handle=functools.partial(self._people.forgetting.take, pipeline),
            drain=functools.partial(pipeline.drain, self._settings.stream.drain_timeout),
            ahead=pipeline.ahead,
        )
        self._image_stream = stream
        working = asyncio.create_task(pipeline.run(), name="pipeline")
        watching: asyncio.Task[None] | None = None
        measuring: asyncio.Task[None] | None = None
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await stream.start()
            watching = asyncio.create_task(stream.watch(), name="watch")
            lag = LagInWorker(self._metrics).run(stream, pipeline)
            measuring = asyncio.create_task(
                run_together({"lag": lag, "model health": self._model_health.run()}),
                name="measuring",
            )
            self._status = "ok"
            logger.info("taking images from %s", self._settings.kafka.bootstrap_servers)
            await asyncio.wait([working, watching, stopping], return_when=asyncio.FIRST_COMPLETED)
            self._status = "stopping" if self._stop.is_set() else "failed"
            pipeline.stop_accepting()
            if not working.done():
                logger.info("finishing %d frames in flight", pipeline.ledger.unfinished)
                await pipeline.drain(self._settings.stream.drain_timeout)
        finally:
            await stream.stop()
            tasks = [task for task in (working, watching, measuring, stopping) if task is not None]
            for task in tasks:
                if not task.done():
                    task.cancel()
            await asyncio.wait(tasks)
        for task in (working, watching):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def _observe(self, stage: str, batch_size: int, seconds: float) -> None:
        self._metrics.stage_seconds.labels(stage).observe(seconds)
        self._service_times.observe(stage, batch_size, seconds)
