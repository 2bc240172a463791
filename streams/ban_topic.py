"""The topic of bans, as workers follow it: from its beginning, then for as long as they live.

It is compacted: the last record of every key stands for ever. Whoever may write to it may write
anything, so what is no record of a ban is counted and passed over.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time

from operators.ban_records import BanRecordError, decode, decode_key
from operators.banlists import Banlists, Change
from sinks.kafka.settings import KafkaSettings
from streams.compacted_topic import CompactedTopic
from streams.metrics import Metrics

logger = logging.getLogger(__name__)

_LOG_AGAIN_AFTER_SECONDS = 60.0


class BanTopic:
    """Keeps `banlists` as the topic says. For use in one event loop."""

    def __init__(self, settings: KafkaSettings, banlists: Banlists, metrics: Metrics) -> None:
        self._banlists = banlists
        self._metrics = metrics
        self._changes: list[Change] = []
        self._logged = -_LOG_AGAIN_AFTER_SECONDS
        self._name = settings.topics.bans
        self._topic = CompactedTopic(settings, self._name, self._take)
        for kind in banlists.counts:
            metrics.bans.labels(kind).set_function(functools.partial(_count, banlists, kind))

    @property
    def trouble(self) -> str | None:
        """Why the topic cannot be read at the moment; bans that are known stay in force."""
        return self._topic.trouble

    async def ready(self) -> None:
        """Wait until every ban that stood on the topic at the start is in force. `run` has to be
        under way."""
        await self._topic.ready()
        self._apply()
        await asyncio.to_thread(self._banlists.end_loading)

    async def run(self) -> None:
        """Follow the topic until cancelled."""
        self._banlists.begin_loading()
        await self._topic.run()

    def _take(self, key: bytes | None, value: bytes | None) -> None:
        try:
            ban = decode_key(key)
            change = Change(ban, None if value is None else decode(ban, value))
        except BanRecordError as error:
            self._metrics.ban_records_refused.inc()
            now = time.monotonic()
            if now - self._logged >= _LOG_AGAIN_AFTER_SECONDS:
                self._logged = now
                logger.warning("a record on topic %s is passed over: %s", self._name, error)
            return
        if not self._changes:
            # When the topic's reader gives way, which it does after two milliseconds.
            asyncio.get_running_loop().call_soon(self._apply)
        self._changes.append(change)

    def _apply(self) -> None:
        changes, self._changes = self._changes, []
        if changes:
            self._banlists.apply(changes)


def _count(banlists: Banlists, kind: str) -> int:
    return banlists.counts[kind]
