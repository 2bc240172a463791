"""Banned images, inside a worker: known before its first image, and followed while it works."""

from __future__ import annotations

import asyncio
import logging

from imagewire.settings import Settings
from operators.banlists import Banlists
from operators.known_images import KnownImages
from streams.ban_topic import BanTopic
from streams.metrics import Metrics

logger = logging.getLogger(__name__)


class BansInWorker:
    """The banlists of one worker.

    Attributes:
        known_images: what the chain asks; `None` if banlists are switched off.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.known_images: KnownImages | None = None
        self._banlists = Banlists(turns=settings.bans.turned)
        self._topic: BanTopic | None = None
        if settings.bans.enabled:
            self._topic = BanTopic(settings.kafka, self._banlists, metrics)
            self.known_images = KnownImages(
                self._banlists, skip_models=settings.bans.banned_skip_models
            )

    async def run(self) -> None:
        """Follow the topic of bans until cancelled."""
        if self._topic is None:
            return
        try:
            await self._topic.run()
        finally:
            await asyncio.to_thread(self._banlists.close)

    async def ready(self) -> None:
        """Wait until every ban that stands is in force. `run` has to be under way."""
        if self._topic is not None:
            await self._topic.ready()
            logger.info(
                "banned: %s",
                ", ".join(f"{count} {kind}" for kind, count in self._banlists.counts.items()),
            )

    def troubles(self) -> dict[str, str]:
        """What does not work at the moment, and why."""
        trouble = self._topic.trouble if self._topic is not None else None
        return {} if trouble is None else {"bans": trouble}
