"""Whether the stores answer, asked at most once a second however many want to know.

Load balancers ask often and without a key, so their questions must not become questions to three
stores each.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from sinks.sink import TransientSinkError

if TYPE_CHECKING:
    from imagewire.api.services import Services

_PATIENCE_SECONDS = 4.0
_KEPT_SECONDS = 1.0


class Readiness:
    """Asks Kafka, ClickHouse and Qdrant for something small."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._asking = asyncio.Lock()
        self._found: dict[str, bool] = {}
        self._at = -_KEPT_SECONDS

    async def stores(self) -> dict[str, bool]:
        """Store to whether it answers, or did less than a second ago."""
        async with self._asking:
            if time.monotonic() - self._at >= _KEPT_SECONDS:
                asked: dict[str, Awaitable[object]] = {
                    "kafka": self._kafka(),
                    "clickhouse": self._services.query("SELECT 1"),
                    "qdrant": self._services.vectors.check(),
                }
                answers = await asyncio.gather(*map(_answers, asked.values()))
                self._found = dict(zip(asked, answers, strict=True))
                self._at = time.monotonic()
            return self._found

    async def _kafka(self) -> None:
        producer = await self._services.producer()
        if not (await producer.client.fetch_all_metadata()).brokers():
            raise TransientSinkError("Kafka names no broker")


async def _answers(asked: Awaitable[object]) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await asked
    except Exception:  # noqa: BLE001 - whatever it is, the store is of no use now
        return False
    return True
