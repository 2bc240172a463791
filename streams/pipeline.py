"""The pipeline: from a record taken from Kafka to an offset that may be acknowledged.

Stages are joined by bounded queues, so that while one batch is on the device the next is fetched
and decoded and the last is written. When any stage stalls, the queues before it fill, intake
pauses, and nothing is dropped. A frame that fails leaves its stage for the sinks at once, as a
dead letter.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from operators.frame import Frame, Lane, Stage
from operators.known_images import KNOWN
from operators.near_identical import REUSED
from sinks.sink import Sink
from streams.batch_lessons import BatchLessons
from streams.batcher import BatchLimits, MicroBatcher
from streams.cost_ladder import CostLadder
from streams.delivery import Delivery
from streams.fetched import FetchError, shown
from streams.in_flight import InFlightBudget, record_size
from streams.isolation import analysed, decided, decoded_parts
from streams.ledger import Entry, Ledger, Partition
from streams.loop_delay import measure_loop_delay
from streams.metrics import Metrics
from streams.reuse import Reuse
from streams.service_time import ServiceTimes
from streams.settings import BatchSettings, StreamSettings
from streams.stages import DecodesFrames, FetchesReferences, ProcessesFrames, RecognisesImages
from streams.together import run_together

logger = logging.getLogger(__name__)


class Pipeline:
    """Runs frames through fetch, decode, operators and sinks. For use in one event loop."""

    def __init__(
        self,
        *,
        fetcher: FetchesReferences,
        decoder: DecodesFrames,
        chain: ProcessesFrames,
        sinks: Sequence[Sink],
        metrics: Metrics,
        stream: StreamSettings,
        batch: BatchSettings,
        fetch_concurrency: int = 32,
        reuse: Reuse | None = None,
        service_times: ServiceTimes | None = None,
        batches_at_once: int = 1,
        decoded_at_once: int | None = None,
        known: RecognisesImages | None = None,
    ) -> None:
        """
        Args:
            reuse: findings of identical content, if they are to be reused; only for a chain whose
                findings depend on nothing but content.
            service_times: what the chain's `observe` is given to; when `None`, the time for a
                whole batch is learned here.
            batches_at_once: how many threads may call the chain's `analyse` side by side.
            decoded_at_once: how many images the decoder works on side by side; bulk frames wait
                for a turn of their own while live ones come. `None` for a decoder of whole batches.
            known: recognises banned images; settles the verdicts of some before they are decoded or
                while their batch is still analysed.
        """
        self._batches_at_once = batches_at_once
        self.ledger = Ledger()
        self._fetcher = fetcher
        self._decoder = decoder
        self._chain = chain
        self._metrics = metrics
        self._reuse = reuse
        self._known = known
        self._ladder = CostLadder(known, reuse, metrics)
        self._lessons = BatchLessons(batch.max_batch, metrics, service_times)
        self._delivery = Delivery(
            sinks,
            metrics,
            on_safe=self._safe,
            on_written=self._written,
            linger={"clickhouse": stream.clickhouse_linger, "qdrant": stream.qdrant_linger},
            block_rows=stream.block_rows,
            # The other half is fetched, decoded and analysed while this one is written.
            enough_rows=max(stream.max_in_flight // 2, 1),
        )
        self._budgets = {
            lane: InFlightBudget(stream.max_in_flight, stream.max_in_flight_bytes) for lane in Lane
        }
        self._entries: dict[Frame, Entry] = {}
        # Held until decoding takes the bytes over, so that fetched images do not pile up.
        self._fetch_slots = {lane: asyncio.Semaphore(fetch_concurrency) for lane in Lane}
        self._fetching: set[asyncio.Task[None]] = set()
        self._inline: dict[Lane, asyncio.Queue[Frame]] = {lane: asyncio.Queue() for lane in Lane}
        self._defects: asyncio.Queue[BaseException] = asyncio.Queue()
        self._accepting = True
        # Decoding takes what is ready: there is nothing to gain from waiting for more.
        self._to_decode = MicroBatcher(
            BatchLimits(max_batch=batch.max_batch, max_batch_bytes=batch.max_batch_bytes),
            lambda frame: len(frame.content or b""),
            max_frames=2 * batch.max_batch,
            max_bytes=stream.max_in_flight_bytes,
            predict=lambda count: -(-count // decoded_at_once) if decoded_at_once else 0,
            # Decoded bulk frames that found no room would keep live ones from being decoded.
            admits=lambda lane: (
                lane is Lane.LIVE or self._to_device.has_room(lane, batch.max_batch)
            ),
        )
        # One batch for each copy of the models, and one that is decoded behind them.
        self._to_device = MicroBatcher(
            BatchLimits(
                max_batch=batch.max_batch,
                max_batch_bytes=batch.max_batch_bytes,
                max_wait=batch.max_wait,
                work_conserving=batch.work_conserving,
                takers=batches_at_once,
            ),
            lambda frame: 0 if frame.pixels is None else frame.pixels.nbytes,
            max_frames=(1 + batches_at_once) * batch.max_batch,
            max_bytes=stream.max_in_flight_bytes,
            predict=self._lessons.predict,
        )
        # Analysed frames, and those whose findings were known; the policy is quick.
        self._to_decide: asyncio.Queue[list[Frame]] = asyncio.Queue(2)
        for stage, depth in {
            "fetch": lambda: len(self._fetching) + sum(q.qsize() for q in self._inline.values()),
            "decode": lambda: len(self._to_decode),
            "device": lambda: len(self._to_device),
        }.items():
            metrics.queue_depth.labels(stage).set_function(depth)

    async def submit(self, frame: Frame, acknowledge: Callable[[], object]) -> None:
        """Take a frame into the pipeline, waiting while too much is under way.

        Call in the order of delivery. `acknowledge` is called once the frame and all before it in
        its partition are safe in every sink. A frame whose partition is given up while it waits is
        let go: Kafka delivers it again, to whoever has the partition then.
        """
        budget = self._budgets[frame.lane]
        revocations = self.ledger.revocations
        size = record_size(frame)
        await budget.acquire(size)
        if not self._accepting:
            # Shutting down: the record stays unacknowledged and will be delivered again.
            budget.release(size)
            await asyncio.Event().wait()
        if self.ledger.revocations != revocations:
            budget.release(size)
            self._metrics.redelivered.inc()
            return
        origin = frame.origin
        self._entries[frame] = self.ledger.begin(
            (origin.topic, origin.partition), origin.offset, acknowledge, size
        )
        self._metrics.frames_in.labels(self._metrics.feed(frame.feed)).inc()
        if frame.failed:
            self._delivery.deliver([frame])
        elif frame.content is not None:
            # The bytes came with the record: a task of its own would cost more than it does. But
            # references behind it must not wait until there is room for it.
            self._inline[frame.lane].put_nowait(frame)
        else:
            self._start(frame)

    def _start(self, frame: Frame) -> None:
        task = asyncio.create_task(self._fetch(frame))
        self._fetching.add(task)
        task.add_done_callback(self._fetched)

    async def run(self) -> None:
        """Work until cancelled. An error that escapes is a reason to stop the worker.

        Raises:
            DeviceLostError: the accelerator cannot be used any more.
            DeadLetterError: a frame can be stored nowhere.
        """
        # The policy has a thread of its own, so that the device need not wait for it.
        names = {"decode": 1, "device": self._batches_at_once, "policy": 1}
        threads = [ThreadPoolExecutor(count, name) for name, count in names.items()]
        loop = asyncio.get_running_loop()
        if self._known is not None:
            self._known.on_settled = lambda frames: asyncio.run_coroutine_threadsafe(
                self._to_decide.put(frames), loop
            )
        try:
            await run_together(
                {
                    "deliver": self._delivery.run(),
                    "decode": self._decode_batches(threads[0]),
                    **{
                        f"device {number}": self._analyse_batches(threads[1], number)
                        for number in range(self._batches_at_once)
                    },
                    "policy": self._decide_batches(threads[2]),
                    "loop": measure_loop_delay(self._metrics.loop_delay.observe),
                    "fetch": self._watch_fetching(),
                    **{f"inline {lane}": self._take_inline(lane) for lane in Lane},
                }
            )
        finally:
            self._accepting = False
            for task in self._fetching:
                task.cancel()
            # A batch in hand is finished, as networks cannot be closed under it; not in this
            # thread, where waiting would silence Kafka and the health endpoint.
            for thread in threads:
                await asyncio.to_thread(thread.shutdown)

    async def _take_inline(self, lane: Lane) -> None:
        while True:
            await self._to_decode.put(await self._inline[lane].get())

    async def _watch_fetching(self) -> None:
        raise await self._defects.get()

    def _fetched(self, task: asyncio.Task[None]) -> None:
        self._fetching.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._defects.put_nowait(error)

    def ahead(self) -> float:
        """Seconds of work on live frames that are ready for the device, as predicted."""
        return self._to_device.ahead(Lane.LIVE)

    def stop_accepting(self) -> None:
        """Take no further frames; those in flight go on."""
        self._accepting = False
        self._delivery.hurry()

    async def drain(self, seconds: float) -> int:
        """Wait until every frame in flight is safe in every sink, at most `seconds`.

        Returns:
            How many are not; they are let go unacknowledged and will be delivered again.
        """
        self._delivery.hurry()
        try:
            async with asyncio.timeout(seconds):
                await self.ledger.wait_empty()
        except TimeoutError:
            logger.warning(
                "%d frames did not finish within %g s and will be delivered again",
                self.ledger.unfinished,
                seconds,
            )
        finally:
            if self._accepting:
                self._delivery.linger()
        dropped = self.ledger.revoke()
        self._metrics.redelivered.inc(dropped)
        return dropped

    def troubles(self) -> Mapping[str, str]:
        """Sinks that cannot write at the moment, and why."""
        return {name: trouble.error for name, trouble in self._delivery.troubles().items()}

    async def _fetch(self, frame: Frame) -> None:
        async with self._fetch_slots[frame.lane]:
            if not self._still_ours([frame]):
                return
            if frame.content is None:
                await self._fetch_content(frame)
            if frame.failed:
                self._delivery.deliver([frame])
            else:
                await self._to_decode.put(frame)

    async def _fetch_content(self, frame: Frame) -> None:
        started = time.perf_counter()
        try:
            frame.content = await self._fetcher.fetch(frame.uri or "")
        except FetchError as error:
            frame.fail(Stage.FETCH, error.reason, str(error))
        except Exception as error:
            logger.exception("fetching %r failed unexpectedly", shown(frame.uri or ""))
            frame.fail(
                Stage.FETCH,
                "internal-error",
                f"fetching failed with {type(error).__name__}: {error}; see the worker's log",
            )
        self._metrics.stage_seconds.labels("fetch").observe(time.perf_counter() - started)

    async def _decode_batches(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            frames = self._still_ours(await self._to_decode.take())
            if not frames:
                continue
            settled, frames = await loop.run_in_executor(thread, self._ladder.climb, frames)
            if settled:
                await self._to_decide.put(settled)
            parts = decoded_parts(self._decoder, frames)
            left = len(frames)
            while left:
                started = time.perf_counter()
                part = await loop.run_in_executor(thread, next, parts, None)
                if part is None:
                    break
                self._metrics.stage_seconds.labels("decode").observe(time.perf_counter() - started)
                left -= len(part)
                await self._hand_over(part)

    async def _hand_over(self, frames: Sequence[Frame]) -> None:
        """Give decoded frames to the device, waiting for room, and failed ones to the sinks."""
        failed = [frame for frame in frames if frame.failed]
        for frame in frames:
            frame.content = None
        self._without_twins(failed)
        self._delivery.deliver(failed)
        for frame in frames:
            if not frame.failed:
                await self._to_device.put(frame)

    async def _analyse_batches(self, thread: ThreadPoolExecutor, number: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._to_device.limit_to(self._lessons.limit())
            frames = self._still_ours(await self._to_device.take(bulk_alone=number == 0))
            self._to_decode.wake()
            if not frames:
                continue
            oldest = min(frame.received_at for frame in frames)
            self._metrics.batch_wait.observe(time.monotonic() - oldest)
            self._metrics.batch_size.observe(len(frames))
            predicted = self._lessons.predict(len(frames))
            started = time.perf_counter()
            shortage = await loop.run_in_executor(thread, analysed, self._chain, frames)
            self._lessons.learn(len(frames), time.perf_counter() - started, predicted, shortage)
            frames = [frame for frame in frames if KNOWN not in frame.findings.extra]
            for frame in frames:
                frame.pixels = None
            await self._to_decide.put(frames)

    async def _decide_batches(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            frames = await self._to_decide.get()
            if self._reuse is not None:
                frames = frames + self._twins(self._reuse, frames)
            await loop.run_in_executor(thread, decided, self._chain, frames)
            self._delivery.deliver(frames)

    def _twins(self, reuse: Reuse, frames: Sequence[Frame]) -> list[Frame]:
        """Frames that have waited for one of `frames` and now have its findings."""
        twins = []
        for frame in frames:
            if frame.failed:
                self._without_twins([frame])
            else:
                twins += self._still_ours(reuse.finish(frame))
                if frame.findings.extra.get(REUSED, {}).get("pdq_distance") is not None:
                    self._metrics.reused.labels("near").inc()
        self._metrics.reused.labels("in-flight").inc(len(twins))
        self._metrics.spared_all("cache", len(twins))
        self._metrics.reuse_bytes.set(reuse.size[1])
        return twins

    def _without_twins(self, frames: Sequence[Frame]) -> None:
        """Frames that waited for one of `frames`, which came to nothing, go their own way."""
        if self._reuse is not None:
            for frame in frames:
                for twin in self._reuse.give_up(frame):
                    self._start(twin)

    def _still_ours(self, frames: Sequence[Frame]) -> list[Frame]:
        """The frames still to be acknowledged here: work on others delays what replaced them."""
        kept = []
        for frame in frames:
            entry = self._entries[frame]
            if entry.revoked:
                self._without_twins([frame])
                del self._entries[frame]
                self._budgets[frame.lane].release(entry.size)
            else:
                kept.append(frame)
        return kept

    def _written(self, frames: Sequence[Frame], sink: Sink) -> None:
        if sink.name == "kafka":
            for frame in frames:
                self._metrics.decided(frame, time.time())

    def oldest(self) -> dict[Partition, float]:
        """Kafka timestamp, in Unix seconds, of the oldest record in flight of each partition."""
        found: dict[Partition, float] = {}
        for frame, entry in self._entries.items():  # in the order of delivery
            if not entry.revoked and frame.origin.timestamp_ms > 0:
                found.setdefault(entry.partition, frame.origin.timestamp_ms / 1000)
        return found

    def _safe(self, frame: Frame) -> None:
        self._metrics.finished(frame)
        entry = self._entries.pop(frame)
        self._budgets[frame.lane].release(entry.size)
        self.ledger.finish(entry)
