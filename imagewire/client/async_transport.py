"""How the asyncio client asks, and asks again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from imagewire.client import models
from imagewire.client.calls import Call
from imagewire.client.connection import Connection
from imagewire.client.errors import ApiError, error_of
from imagewire.client.events import EventReader

T = TypeVar("T")


class AsyncTransport:
    """Makes calls, and follows the stream of verdicts."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 2,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._connection = Connection(url, key, timeout, retries)
        options: dict[str, Any] = self._connection.options()
        self._http = httpx.AsyncClient(transport=transport, **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def verdicts(
        self,
        *,
        feed: str | None = None,
        verdict: models.Verdict | None = None,
        after: str | None = None,
    ) -> AsyncIterator[models.VerdictEvent]:
        """Verdicts as they come, without end. A broken stream is taken up again where it broke.

        Args:
            after: `event_id` of the last event that is known; without it the stream begins now.

        Raises:
            ApiError, UnreachableError: it could not be begun, or not be taken up again.
        """
        reader = EventReader(after)
        asked = {"feed": feed, "verdict": verdict}
        params = {name: value for name, value in asked.items() if value is not None}
        tries = 0
        while True:
            try:
                async with self._http.stream(
                    "GET",
                    "/v1/verdicts/stream",
                    params=params,
                    headers=reader.headers(),
                    timeout=self._connection.silence,
                ) as response:
                    if response.is_error:
                        await response.aread()
                        raise error_of(response)
                    async for content in response.aiter_bytes():
                        tries = 0
                        for event in reader.take(content):
                            yield event
                failure: Exception = self._connection.ended()
            except (httpx.HTTPError, ApiError) as error:
                failure = self._connection.named(error)
            reader.broken()
            tries += 1
            pause = self._connection.pause(failure, True, tries)
            if pause is None:
                raise failure
            await asyncio.sleep(max(pause, reader.retry_seconds))

    async def _do(self, call: Call[T]) -> T:
        tries, began = 0, time.monotonic()
        while True:
            try:
                response = await self._http.request(call.method, call.path, **call.arguments())
                if not response.is_error:
                    return call.read(response)
                failure: Exception = error_of(response)
            except httpx.HTTPError as error:
                failure = self._connection.named(error)
            tries += 1
            patience = call.patience - (time.monotonic() - began)
            pause = self._connection.pause(failure, call.repeatable, tries, patience)
            if pause is None:
                raise failure
            await asyncio.sleep(pause)
