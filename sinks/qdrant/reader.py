"""Finds images that look like another, by its vector or by its id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from operators.findings import Action
from operators.frame import point_id_of
from sinks.qdrant.connection import ERRORS, as_sink_error, connect, is_not_found
from sinks.qdrant.settings import QdrantSettings
from sinks.sink import PermanentSinkError, SinkError

_VECTORS_AT_ONCE = 64
"""1280 numbers each; a page holds the event loop for some milliseconds."""


class ImageNotFoundError(LookupError):
    """The image to search by is not among those stored."""


@dataclass(frozen=True, slots=True)
class Similar:
    """An image that was found.

    Attributes:
        score: cosine similarity, 1 for the same picture. With the default embedder near-duplicates
            score about 0.86 (median), and 99 % of unrelated pairs below 0.46.
        payload: `content_id`, `feed`, `event_time`, `verdict`, `labels`, `uri` and, where text was
            read, `text`.
    """

    image_id: str
    score: float
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Placed:
    """An image as a point: `vector` is float32 of shape (dimension,), of unit length; `event_time`
    is RFC 3339 in UTC with milliseconds."""

    image_id: str
    feed: str
    content_id: str
    event_time: str
    vector: NDArray[np.float32]


class VectorReader:
    """Searches the collection that the alias points at.

    Use it as an async context manager, or call `close`.
    """

    def __init__(self, settings: QdrantSettings) -> None:
        self._settings = settings
        self._client = connect(settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._client.close()

    async def check(self) -> None:
        """Ask for something small.

        Raises:
            TransientSinkError: Qdrant cannot be reached now.
            PermanentSinkError: it lets nobody in with these settings.
        """
        await self._has_collection()

    async def search(
        self,
        vector: Sequence[float] | None = None,
        image_id: str | None = None,
        limit: int = 10,
        feed: str | None = None,
        verdict: Action | None = None,
        labels: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        feeds: Sequence[str] | None = None,
        min_score: float | None = None,
        among: Sequence[str] | None = None,
    ) -> list[Similar]:
        """Images similar to `vector`, or to a stored image (which is itself left out).

        Args:
            vector: of the embedder in force. Give this or `image_id`.
            image_id: of a stored image.
            limit: how many at most.
            feed: only of this feed.
            verdict: only with this verdict.
            labels: only those in which every one of these objects was found.
            since: only with an event time at or after this.
            until: only with an event time before this.
            feeds: only of one of these feeds.
            min_score: only those at least so similar.
            among: only of the images with these ids.

        Returns:
            The most similar first.

        Raises:
            ValueError: not exactly one of `vector` and `image_id` was given.
            ImageNotFoundError: no image `image_id` is stored.
            TransientSinkError: Qdrant cannot be reached now.
            PermanentSinkError: nothing was ever stored, or Qdrant refuses.
        """
        if (vector is None) == (image_id is None):
            raise ValueError("search by a vector or by an image id: give exactly one of them")
        query = point_id_of(image_id) if image_id is not None else list(vector or ())
        try:
            response = await self._client.query_points(
                self._settings.collection,
                query=query,
                limit=limit,
                query_filter=_filter(feed, verdict, labels, since, until, feeds, among),
                score_threshold=min_score,
                with_payload=True,
            )
        except ERRORS as error:
            if image_id is not None and is_not_found(error) and await self._has_collection():
                raise ImageNotFoundError(
                    f"image '{image_id}' is not stored in Qdrant; it has no embedding, "
                    "or its findings have not arrived yet"
                ) from error
            raise self._sink_error(error, "searching") from error
        return [_similar(point) for point in response.points]

    async def count(
        self,
        feed: str | None = None,
        verdict: Action | None = None,
        labels: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> int:
        """How many images are stored; arguments and errors as in `search`."""
        try:
            result = await self._client.count(
                self._settings.collection,
                count_filter=_filter(feed, verdict, labels, since, until),
                exact=True,
            )
        except ERRORS as error:
            raise self._sink_error(error, "counting") from error
        return int(result.count)

    async def vectors(
        self,
        limit: int,
        feeds: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Placed]:
        """The vectors of at most `limit` images, in no particular order; filters and errors as in
        `search`."""
        found: list[Placed] = []
        offset: models.ExtendedPointId | None = None
        while len(found) < limit:
            try:
                records, offset = await self._client.scroll(
                    self._settings.collection,
                    scroll_filter=_filter(None, None, None, since, until, feeds),
                    limit=min(limit - len(found), _VECTORS_AT_ONCE),
                    offset=offset,
                    with_payload=["image_id", "feed", "content_id", "event_time"],
                    with_vectors=True,
                )
            except ERRORS as error:
                raise self._sink_error(error, "reading vectors") from error
            found += [_placed(record) for record in records if isinstance(record.vector, list)]
            if offset is None:
                break
        return found

    async def vectors_of(
        self, model: str, image_ids: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """The vectors that an embedder gave these images, of unit length, by image id; images
        without one are left out.

        Args:
            model: `name@version` of the embedder; it need not be the one in force.

        Raises:
            TransientSinkError: Qdrant cannot be reached now.
            PermanentSinkError: Qdrant refuses.
        """
        collection = self._settings.collection_for(model)
        found: dict[str, NDArray[np.float32]] = {}
        for start in range(0, len(image_ids), _VECTORS_AT_ONCE):
            ids = {
                point_id_of(image_id): image_id
                for image_id in image_ids[start : start + _VECTORS_AT_ONCE]
            }
            try:
                records = await self._client.retrieve(
                    collection, list(ids), with_payload=False, with_vectors=True
                )
            except ERRORS as error:
                if is_not_found(error):
                    return {}
                doing = f"reading vectors of '{collection}' in Qdrant at {self._settings.address}"
                raise as_sink_error(error, doing) from error
            for record in records:
                if isinstance(record.vector, list):
                    found[ids[str(record.id)]] = np.asarray(record.vector, np.float32)
        return found

    async def feed_of(self, image_id: str) -> str | None:
        """The feed of the image whose vector is stored under this id; `None` if none is.

        Raises:
            TransientSinkError: Qdrant cannot be reached now.
            PermanentSinkError: nothing was ever stored, or Qdrant refuses.
        """
        try:
            found = await self._client.retrieve(
                self._settings.collection, [point_id_of(image_id)], with_payload=["feed"]
            )
        except ERRORS as error:
            raise self._sink_error(error, "looking into") from error
        return str((found[0].payload or {}).get("feed", "")) if found else None

    async def _has_collection(self) -> bool:
        try:
            return bool(await self._client.collection_exists(self._settings.collection))
        except ERRORS as error:
            raise self._sink_error(error, "searching") from error

    def _sink_error(self, error: BaseException, doing: str) -> SinkError:
        where = f"{doing} '{self._settings.collection}' in Qdrant at {self._settings.address}"
        if is_not_found(error):
            return PermanentSinkError(
                f"{where}: there is no such collection; no image has been stored yet"
            )
        return as_sink_error(error, where)


def _similar(point: models.ScoredPoint) -> Similar:
    payload = dict(point.payload or {})
    return Similar(str(payload.pop("image_id", point.id)), point.score, payload)


def _placed(record: models.Record) -> Placed:
    payload = record.payload or {}
    return Placed(
        str(payload.get("image_id", record.id)),
        str(payload.get("feed", "")),
        str(payload.get("content_id") or ""),
        str(payload.get("event_time") or ""),
        np.asarray(record.vector, np.float32),
    )


def _filter(
    feed: str | None,
    verdict: Action | None,
    labels: Sequence[str] | None,
    since: datetime | None,
    until: datetime | None,
    feeds: Sequence[str] | None = None,
    among: Sequence[str] | None = None,
) -> models.Filter | None:
    must: list[models.Condition] = [
        models.FieldCondition(key=key, match=models.MatchValue(value=value))
        for key, value in (
            ("feed", feed),
            ("verdict", verdict),
            *(("labels", label) for label in labels or ()),
        )
        if value is not None
    ]
    if since is not None or until is not None:
        moments = models.DatetimeRange(gte=since, lt=until)
        must.append(models.FieldCondition(key="event_time", range=moments))
    if feeds is not None:
        must.append(models.FieldCondition(key="feed", match=models.MatchAny(any=list(feeds))))
    if among is not None:
        must.append(models.HasIdCondition(has_id=[point_id_of(image_id) for image_id in among]))
    return models.Filter(must=must) if must else None
