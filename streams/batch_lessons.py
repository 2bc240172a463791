"""What the batches that the device has done teach about the next: how large, and how long.

The batch limit follows the device's memory, the service time its speed; both are shown as metrics.
"""

from __future__ import annotations

import logging
import time

from operators.chain import OutOfMemory
from streams.batch_limit import BatchLimit
from streams.metrics import Metrics
from streams.service_time import ServiceTimes

logger = logging.getLogger(__name__)

_SHOWN_EVERY_SECONDS = 1.0
"""Predictions change with every batch, and are read by Prometheus every few seconds."""


class BatchLessons:
    """Learns from each batch. For use in one event loop."""

    def __init__(
        self, max_batch: int, metrics: Metrics, service_times: ServiceTimes | None = None
    ) -> None:
        """
        Args:
            service_times: what somebody else teaches, operator by operator; when `None`, the time
                for a whole batch is learned here.
        """
        self._max_batch = max_batch
        self._metrics = metrics
        self._limit = BatchLimit(max_batch)
        self._learns_whole_batches = service_times is None
        self._service_times = service_times or ServiceTimes()
        self._shown_at = 0.0
        metrics.batch_limit.set(max_batch)

    def limit(self) -> int:
        """The most frames in the next batch."""
        limit = self._limit.current()
        self._metrics.batch_limit.set(limit)
        return limit

    def predict(self, batch_size: int) -> float:
        """Seconds that a batch of `batch_size` frames will take; 0 before the first."""
        return self._service_times.predict(batch_size)

    def learn(
        self, batch_size: int, seconds: float, predicted: float, shortage: OutOfMemory | None
    ) -> None:
        """A batch of `batch_size` frames took `seconds`.

        Args:
            predicted: what `predict` had said before.
            shortage: what of the batch did not fit into memory.
        """
        self._metrics.stage_seconds.labels("operators").observe(seconds)
        if predicted > 0:
            self._metrics.prediction.observe(seconds / predicted)
        if self._learns_whole_batches:
            self._service_times.observe("operators", batch_size, seconds)
        if shortage is not None:
            self._did_not_fit(shortage)
        now = time.monotonic()
        if now - self._shown_at >= _SHOWN_EVERY_SECONDS:
            self._shown_at = now
            self._show()

    def _show(self) -> None:
        for size in {1, self._max_batch}:
            for stage, expected in self._service_times.by_stage(size).items():
                self._metrics.service_time.labels(stage, str(size)).set(expected)

    def _did_not_fit(self, shortage: OutOfMemory) -> None:
        """Keep the next batches to what fitted; an image too large by itself changes nothing."""
        self._metrics.out_of_memory.inc(shortage.times)
        if shortage.batch_sizes:
            smallest = min(shortage.batch_sizes)
            limit = self._limit.did_not_fit(smallest)
            logger.warning(
                "a batch of %d frames did not fit into memory; batches hold %d for now",
                smallest,
                limit,
            )
