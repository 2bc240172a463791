"""What people decide, inside a worker: known before its first image, taken while it works.

A worker waits until it has read every decision that stands on the topic of overrides; from then on
that topic and the topic of decisions are followed beside the stream, which they never hold up.
"""

from __future__ import annotations

import asyncio

from imagewire.reviews import ReviewIntake
from imagewire.settings import Settings
from sinks.clickhouse.reviews import ReviewStore
from streams.compacted_topic import CompactedTopic
from streams.metrics import Metrics
from streams.reviews_audit import AuditSampling
from streams.reviews_first import PeopleFirst
from streams.reviews_overrides import Overrides
from streams.tombstones import Covers, nothing_erased


class ReviewsInWorker:
    """The reviewers' side of one worker."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        forgotten: Covers = nothing_erased,
    ) -> None:
        """
        Args:
            forgotten: whether an image was erased.
        """
        self._overrides = Overrides(settings.reviews.max_overrides, self._repair)
        metrics.overrides.set_function(lambda: len(self._overrides))
        audit = settings.audit
        sampling = AuditSampling(audit.allow, audit.block, audit.rules)
        self.people_first = PeopleFirst(self._overrides, sampling)
        self._store = ReviewStore(settings.clickhouse) if settings.clickhouse.enabled else None
        self._topic = CompactedTopic(
            settings.kafka, settings.kafka.topics.overrides, self._overrides.apply
        )
        self._intake = ReviewIntake(
            settings.kafka,
            f"{settings.stream.group}.reviews",
            overrides=self._overrides,
            store=self._store,
            metrics=metrics,
            forgotten=forgotten,
        )

    async def ready(self) -> None:
        """Wait until every decision that stands is known. `run` has to be under way."""
        await self._topic.ready()

    async def run(self) -> None:
        """Follow decisions until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._topic.run(), name="overrides")
                group.create_task(self._intake.run(), name="reviews")
        finally:
            if self._store is not None:
                await self._store.close()

    def troubles(self) -> dict[str, str]:
        """What does not work at the moment, and why."""
        found = {"overrides": self._topic.trouble, "reviews": self._intake.trouble}
        return {name: trouble for name, trouble in found.items() if trouble is not None}

    def _repair(self, key: bytes, value: bytes) -> None:
        self._intake.repair(key, value)
