"""Erases images from every collection of vectors, whatever embedder made it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

from qdrant_client import AsyncQdrantClient, models

from operators.frame import point_id_of
from sinks.qdrant.connection import ERRORS, as_sink_error, connect, is_not_found
from sinks.qdrant.settings import QdrantSettings

_AT_ONCE = 500
_TIMEOUT_SECONDS = 120


class VectorEraser:
    """Counts and erases points; an async context manager."""

    def __init__(self, settings: QdrantSettings) -> None:
        self._settings = settings
        self._client: AsyncQdrantClient = connect(settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.close()

    async def count(
        self,
        image_ids: Sequence[str] = (),
        content_ids: Sequence[str] = (),
        feeds: Sequence[str] = (),
        without: Sequence[str] = (),
    ) -> dict[str, int]:
        """Points that would be erased, by collection; see `Selection` for the arguments.

        Raises:
            TransientSinkError, PermanentSinkError
        """
        return await self._each(_filters(image_ids, content_ids, feeds, without), erase=False)

    async def erase(
        self,
        image_ids: Sequence[str] = (),
        content_ids: Sequence[str] = (),
        feeds: Sequence[str] = (),
        without: Sequence[str] = (),
    ) -> dict[str, int]:
        """Erase the points and return how many there were, by collection.

        Raises:
            TransientSinkError, PermanentSinkError: some may be erased; again is safe.
        """
        return await self._each(_filters(image_ids, content_ids, feeds, without), erase=True)

    async def expire(self, before: datetime, feed: str | None = None) -> int:
        """Erase points that were written before that moment (of one feed); how many there were.

        Points of versions that did not note when they were written go by their event time.

        Raises:
            TransientSinkError, PermanentSinkError
        """
        limit = models.DatetimeRange(lt=before)
        ages = [
            models.Filter(must=[models.FieldCondition(key="stored_at", range=limit)]),
            models.Filter(
                must=[
                    models.IsEmptyCondition(is_empty=models.PayloadField(key="stored_at")),
                    models.FieldCondition(key="event_time", range=limit),
                ]
            ),
        ]
        only: list[models.Condition] = []
        if feed is not None:
            only.append(models.FieldCondition(key="feed", match=models.MatchValue(value=feed)))
        filters = [models.Filter(must=[*(age.must or []), *only]) for age in ages]
        return sum((await self._each(filters, erase=True)).values())

    async def _each(self, filters: Sequence[models.Filter], *, erase: bool) -> dict[str, int]:
        where = f"erasing from Qdrant at {self._settings.address}"
        try:
            listed = (await self._client.get_collections()).collections
            prefix = f"{self._settings.collection}_"
            names = sorted(each.name for each in listed if each.name.startswith(prefix))
            return {name: await self._one(name, filters, erase=erase) for name in names}
        except ERRORS as error:
            raise as_sink_error(error, where) from error

    async def _one(self, name: str, filters: Sequence[models.Filter], *, erase: bool) -> int:
        found = 0
        for each in filters:
            try:
                count = (await self._client.count(name, count_filter=each, exact=True)).count
                if erase and count:
                    await self._client.delete(
                        name,
                        points_selector=models.FilterSelector(filter=each),
                        wait=True,
                        timeout=_TIMEOUT_SECONDS,
                    )
            except ERRORS as error:
                if is_not_found(error):
                    return found  # the collection went meanwhile
                raise
            found += int(count)
        return found


def _filters(
    image_ids: Sequence[str],
    content_ids: Sequence[str],
    feeds: Sequence[str],
    without: Sequence[str],
) -> list[models.Filter]:
    found: list[models.Filter] = []
    others: list[models.Condition] = []
    if without:
        left_out = models.MatchAny(any=list(without))
        others.append(models.FieldCondition(key="content_id", match=left_out))
    for begin in range(0, len(image_ids), _AT_ONCE):
        ids: list[int | str] = [point_id_of(each) for each in image_ids[begin : begin + _AT_ONCE]]
        found.append(models.Filter(must=[models.HasIdCondition(has_id=ids)], must_not=others))
    for key, values in (("content_id", content_ids), ("feed", feeds)):
        for begin in range(0, len(values), _AT_ONCE):
            chosen = models.MatchAny(any=list(values[begin : begin + _AT_ONCE]))
            found.append(models.Filter(must=[models.FieldCondition(key=key, match=chosen)]))
    return found
