"""How far a worker is behind: records that wait, and for how long the oldest has waited.

Records say how much work there is; seconds say what whoever waits for a verdict feels, and are what
an alert can be about, whatever the rate. Kafka is asked for nothing: the oldest record in flight is
the oldest that is not acknowledged, as they are taken in order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from streams.app import ImageStream
from streams.ledger import Partition
from streams.metrics import Metrics
from streams.pipeline import Pipeline

_EVERY_SECONDS = 2.0


class LagInWorker:
    """Keeps both gauges for the partitions that a worker has, and for those only."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._waiting_since: dict[Partition, float] = {}
        self._shown: set[Partition] = set()

    async def run(self, stream: ImageStream, pipeline: Pipeline) -> None:
        """Look every two seconds until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            self.show(stream.lag(pipeline.ledger.positions()), pipeline.oldest(), time.time())

    def show(
        self, records: Mapping[Partition, int], oldest: Mapping[Partition, float], now: float
    ) -> None:
        """Set the gauges.

        Args:
            records: not acknowledged yet, for each partition that is assigned.
            oldest: Kafka timestamp, in Unix seconds, of the oldest record in flight.
            now: in Unix seconds.
        """
        for partition, count in records.items():
            topic, number = partition[0], str(partition[1])
            self._metrics.consumer_lag.labels(topic, number).set(count)
            since = oldest.get(partition)
            if since is not None or not count:
                self._waiting_since.pop(partition, None)
            if since is None and count:
                # They wait, and none was taken: what their timestamps are is not known.
                since = self._waiting_since.setdefault(partition, now)
            seconds = max(now - since, 0.0) if since is not None and count else 0.0
            self._metrics.consumer_lag_seconds.labels(topic, number).set(seconds)
        for partition in self._shown - records.keys():
            # Another worker has it now: a value that stays would be taken for its lag.
            self._waiting_since.pop(partition, None)
            for gauge in (self._metrics.consumer_lag, self._metrics.consumer_lag_seconds):
                gauge.remove(partition[0], str(partition[1]))
        self._shown = set(records)
