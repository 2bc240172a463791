"""Everything about people inside a worker: decisions, tombstones, retention, webhooks.

It runs beside the stream, which waits at the start until all decisions and tombstones are known and
is never held up by any of it afterwards.
"""

from __future__ import annotations

import asyncio

from imagewire.forgetting_in_worker import ForgettingInWorker
from imagewire.retention import Retention
from imagewire.reviews_in_worker import ReviewsInWorker
from imagewire.settings import ConfigurationError, Settings
from imagewire.webhooks import Notifier
from imagewire.webhooks_settings import WebhookSecretError
from streams.metrics import Metrics


class PeopleInWorker:
    """The parts, and one life for all of them.

    Attributes:
        forgetting: what was erased; guards the sinks and the intake.
        first: puts people's decisions in place of the policy's; see `OperatorChain.on_decided`.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """
        Raises:
            ConfigurationError: a webhook has no usable secret.
        """
        self.forgetting = ForgettingInWorker(settings.kafka, metrics)
        self._reviews = ReviewsInWorker(settings, metrics, self.forgetting.tombstones.covers)
        self.first = self._reviews.people_first
        self._retention = Retention(settings, metrics)
        try:
            self._notifiers = [
                Notifier(
                    webhook,
                    settings.kafka,
                    settings.stream.group,
                    metrics,
                    forgotten=self.forgetting.tombstones.covers,
                )
                for webhook in settings.webhooks
            ]
        except WebhookSecretError as error:
            raise ConfigurationError(str(error)) from error

    async def ready(self) -> None:
        """Wait until every decision and tombstone that stands is known. `run` has to be under way:
        an image that came before would be judged, or stored, as if there were none."""
        await self.forgetting.ready()
        await self._reviews.ready()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.forgetting.run(), name="forgetting")
            group.create_task(self._reviews.run(), name="reviews")
            # Tombstones come first: a decision or a message about an erased image is dropped.
            await self.forgetting.ready()
            group.create_task(self._retention.run(), name="retention")
            for notifier in self._notifiers:
                group.create_task(notifier.run(), name="webhook")

    def troubles(self) -> dict[str, str]:
        """What does not work at the moment, and why. A receiver of webhooks that is down is not
        the worker's trouble: metrics and the log tell of it."""
        return self.forgetting.troubles() | self._reviews.troubles()
