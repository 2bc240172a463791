"""Deletes what has been kept long enough, from ClickHouse and Qdrant, and says how much it was.

ClickHouse's own TTL removes rows of images and failures after `clickhouse.retention_days`; what is
to go earlier, by table or by feed, is deleted here, in the same way on servers and on the embedded
engines. Every worker does it: a deletion of what is gone already finds nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import UTC, datetime, timedelta

from imagewire.settings import Settings
from sinks.clickhouse.erasing import ClickHouseEraser
from sinks.qdrant.erasing import VectorEraser
from sinks.sink import SinkError
from streams.metrics import Metrics

logger = logging.getLogger(__name__)

_TABLES = {
    "images_raw": "images_days",
    "failures_raw": "failures_days",
    "reviews_raw": "reviews_days",
}


class Retention:
    """Looks at the start and then every `retention.interval` seconds."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self.trouble: str | None = None

    @property
    def is_needed(self) -> bool:
        """Whether anything is to be deleted at all."""
        retention = self._settings.retention
        days = [getattr(retention, name) for name in _TABLES.values()]
        return any((*days, retention.vectors_days, retention.feeds))

    async def run(self) -> None:
        """Delete until cancelled."""
        while self.is_needed:
            try:
                await self.look()
                self.trouble = None
            except SinkError as error:
                if self.trouble is None:
                    logger.warning("what is to be deleted stays for now: %s", error)
                self.trouble = str(error)
            except Exception as error:
                logger.exception("deleting what is old failed unexpectedly")
                self.trouble = f"{type(error).__name__}: {error}"
            # Workers that were started together should not all look at once.
            await asyncio.sleep(self._settings.retention.interval * random.uniform(0.8, 1.2))  # noqa: S311

    async def look(self) -> dict[str, int]:
        """Delete what is old now; how many rows and points, by table and for `vectors`.

        Raises:
            TransientSinkError, PermanentSinkError
        """
        deleted: dict[str, int] = {}
        if self._settings.clickhouse.enabled:
            deleted |= await asyncio.to_thread(self._rows)
        if self._settings.qdrant.enabled:
            deleted["vectors"] = await self._vectors()
        for store, count in deleted.items():
            if count:
                self._metrics.expired.labels(store).inc(count)
                logger.info("deleted %d from %s, whose time was over", count, store)
        return deleted

    def _rows(self) -> dict[str, int]:
        retention = self._settings.retention
        eraser = ClickHouseEraser(self._settings.clickhouse)
        deleted = {}
        try:
            for table, name in _TABLES.items():
                days: int | None = getattr(retention, name)
                if table == "images_raw":
                    # ClickHouse's TTL works when it merges, which may be after decisions are gone.
                    days = retention.of_images(self._settings.clickhouse.retention_days)
                count = eraser.expire(table, days) if days is not None else 0
                for feed, feed_days in retention.feeds.items():
                    if days is None or feed_days < days:
                        count += eraser.expire(table, feed_days, feed)
                deleted[table] = count
        finally:
            eraser.close()
        return deleted

    async def _vectors(self) -> int:
        retention = self._settings.retention
        days = retention.vectors_days
        count = 0
        now = datetime.now(UTC)
        async with VectorEraser(self._settings.qdrant) as eraser:
            if days is not None:
                count += await eraser.expire(now - timedelta(days=days))
            for feed, feed_days in retention.feeds.items():
                if days is None or feed_days < days:
                    count += await eraser.expire(now - timedelta(days=feed_days), feed)
        return count
