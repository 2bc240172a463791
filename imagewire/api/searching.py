"""Similar images: what Qdrant finds, with what ClickHouse knows of it.

Qdrant knows the verdict that an image came with, ClickHouse the one in force. So a search for one
verdict asks for the images that came with it and for those that people gave it since, and keeps
what has it now. Images with the same bytes are one result, the nearest of them, with their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from imagewire.api.image_models import SearchResult
from imagewire.api.image_queries import ImageQueries
from imagewire.api.problems import Problem
from imagewire.api.search_request import SearchRequest
from imagewire.api.stored_images import public_uri
from sinks.qdrant.reader import ImageNotFoundError, Similar, VectorReader
from sinks.sink import PermanentSinkError

_MOST_CANDIDATES = 4000
"""Points that are asked for at most: beyond, copies of a few pictures fill the answer."""
_MOST_DECIDED = 1000
"""Images, decided by people, that are searched besides; the engine gets their ids."""


class Search:
    """One search.

    Args:
        allowed: the feeds that the caller may see; empty for all.
        vector: what to look for, unless `asked` names an image.
    """

    def __init__(
        self,
        queries: ImageQueries,
        vectors: VectorReader,
        asked: SearchRequest,
        allowed: Sequence[str],
        vector: Sequence[float] | None,
    ) -> None:
        self._queries = queries
        self._vectors = vectors
        self._asked = asked
        self._allowed = allowed
        self._vector = vector

    async def results(self) -> list[SearchResult]:
        """The most similar images first.

        Raises:
            Problem: 404, the image to search by is not stored; 422, the vector does not fit.
            TransientSinkError, QueryError: a store does not answer.
        """
        await self._require_own_vector()
        limit = self._asked.limit
        wanted = min(2 * limit + 20, _MOST_CANDIDATES)
        while True:
            points = await self._points(wanted)
            results = await self._of_points(points)
            exhausted = len(points) < wanted or wanted >= _MOST_CANDIDATES
            if len(results) >= limit or exhausted:
                return await self._counted(results[:limit])
            wanted = min(4 * wanted, _MOST_CANDIDATES)

    async def _require_own_vector(self) -> None:
        """A vector is known by its image's id alone, which another feed may have used after the
        caller's: what resembles it would tell of a picture that the caller must not see."""
        image_id = self._asked.image_id
        if self._allowed and image_id is not None:
            feed = await self._vectors.feed_of(image_id)
            if feed not in self._allowed:
                raise _no_such_image()

    async def _points(self, limit: int) -> list[Similar]:
        asked = self._asked
        if asked.verdict is None:
            return await self._found(limit)
        came = await self._found(limit, verdict=asked.verdict)
        decided = await self._queries.decided_otherwise(asked.verdict, self._allowed, _MOST_DECIDED)
        if not decided:
            return came
        became = await self._found(limit, among=decided)
        joined = {point.image_id: point for point in (*came, *became)}
        return sorted(joined.values(), key=lambda point: -point.score)[:limit]

    async def _found(self, limit: int, **narrowed: Any) -> list[Similar]:
        asked = self._asked
        try:
            return await self._vectors.search(
                vector=self._vector,
                image_id=asked.image_id,
                limit=limit,
                feed=asked.feed or None,
                labels=asked.labels or None,
                since=asked.since,
                until=asked.until,
                feeds=self._allowed or None,
                min_score=asked.min_score,
                **narrowed,
            )
        except ImageNotFoundError as error:
            raise _no_such_image() from error
        except PermanentSinkError as error:
            if self._vector is None or "no such collection" in str(error):
                raise
            raise Problem(
                422,
                "wrong-vector",
                "The vector does not fit",
                f"vectors of {len(self._vector)} numbers cannot be compared with those stored; "
                "give one of the embedder that the worker uses",
            ) from error

    async def _of_points(self, points: Sequence[Similar]) -> list[SearchResult]:
        """Results with one for each content, in order."""
        known = await self._queries.by_ids([point.image_id for point in points], self._allowed)
        results: list[SearchResult] = []
        contents: set[str] = set()
        for point in points:
            image = known.get((str(point.payload.get("feed", "")), point.image_id))
            fields = _of_payload(point) if image is None else image.fields()
            if self._asked.verdict not in (None, fields["verdict"]):
                continue
            content = fields["content_id"] or point.image_id
            if content not in contents:
                contents.add(content)
                score = round(min(max(point.score, -1.0), 1.0), 6)
                results.append(SearchResult(**fields, score=score, copies=1))
        return results

    async def _counted(self, results: list[SearchResult]) -> list[SearchResult]:
        contents = [result.content_id for result in results if result.content_id]
        copies = await self._queries.copies(contents, self._allowed)
        return [
            result.model_copy(update={"copies": max(1, copies.get(result.content_id or "", 1))})
            for result in results
        ]


def _no_such_image() -> Problem:
    return Problem(
        404,
        "unknown-image",
        "There is no such image",
        "the image to search by has no embedding, or is not stored",
    )


def _of_payload(point: Similar) -> dict[str, Any]:
    """What the point itself says of its image: its row may not be written yet."""
    payload = point.payload
    return {
        "image_id": point.image_id,
        "content_id": payload.get("content_id"),
        "feed": payload.get("feed") or "",
        "event_time": payload.get("event_time") or "1970-01-01T00:00:00.000Z",
        "uri": public_uri(str(payload.get("uri") or "")),
        "verdict": payload.get("verdict"),
        "decided_by": "policy",
        "rules": [],
        "labels": payload.get("labels") or [],
        "text": payload.get("text") or "",
        "width": 0,
        "height": 0,
        "latency_ms": None,
    }
