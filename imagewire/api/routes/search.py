"""Images that look alike: searches, and near-duplicates in a time range."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from imagewire.api.asked_image import Moment, allowed_feeds
from imagewire.api.image_models import DuplicateGroup, DuplicatesAnswer, SearchAnswer
from imagewire.api.image_queries import ImageQueries
from imagewire.api.keys import Caller, Scope, needs
from imagewire.api.picture_answers import told_when_busy
from imagewire.api.problems import Problem, invalid
from imagewire.api.search_request import SEARCH, SearchRequest, asked
from imagewire.api.searching import Search
from imagewire.api.services import Services, Shared

router = APIRouter(tags=["search"])

Reader = Annotated[Caller, Depends(needs(Scope.READ))]

_SAME = 0.8
"""With the default embedder edited copies have a cosine of 0.86 in the median, and 99 % of
unrelated pairs are below 0.46 (docs/search.md)."""


@router.post("/v1/search", summary="Find similar images", openapi_extra=SEARCH)
async def search_images(request: Request, services: Shared, caller: Reader) -> SearchAnswer:
    """Images that look like a picture, a stored image or a vector, or that a text describes where
    the embedder understands words, the most similar first; images with the same bytes are one
    result. A picture is sent in a form or, in base64, in JSON."""
    started = time.monotonic()
    read = await asked(request, services.settings.fetch.max_bytes)
    search = read.request
    if search.feed:
        caller.require_feed(search.feed)
    queries = ImageQueries(services.query)
    allowed = allowed_feeds(caller)
    if search.image_id is not None and allowed:
        found = await queries.by_ids([search.image_id], allowed)
        if not found:
            raise Problem(
                404,
                "unknown-image",
                "There is no such image",
                "the image to search by is not stored",
            )
    vector = await _vector(services, search, read.content)
    results = await Search(queries, services.vectors, search, allowed, vector).results()
    took = round((time.monotonic() - started) * 1000, 1)
    return SearchAnswer(results=results, took_ms=took)


async def _vector(
    services: Services, search: SearchRequest, content: bytes | None
) -> Sequence[float] | None:
    if content is not None:
        return (await services.looking.embedding(content)).vector
    if search.text is not None:
        return await services.looking.of_words(search.text)
    if search.vector is None:
        return None
    norm = math.hypot(*search.vector)
    if not 0 < norm < math.inf:
        raise invalid("the vector has no direction, or numbers that are too large", where="vector")
    # Of unit length, so that what 32 bits cannot hold cannot be in it.
    return [value / norm for value in search.vector]


class DuplicatesRequest(BaseModel):
    """In which images to look for near-duplicates."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"since": "2026-01-31T08:00:00Z", "until": "2026-01-31T09:00:00Z"}]
        },
    )

    since: Moment = Field(description="Captured at or after this.")
    until: Moment = Field(description="Captured before this.")
    feed: str | None = Field(None, min_length=1, max_length=128, description="Of this feed only.")
    threshold: float = Field(
        _SAME, ge=0.3, le=1, description="Cosine similarity from which on two are nearly the same."
    )


@router.post("/v1/duplicates", summary="Find near-duplicates in a time range")
async def find_duplicates(
    asked_for: DuplicatesRequest, services: Shared, caller: Reader
) -> DuplicatesAnswer:
    """Groups of images that are nearly the same picture. At most 4000 images are compared at once;
    `complete` says whether the range held more. 503 with Retry-After if others wait already."""
    if asked_for.since >= asked_for.until:
        raise invalid("since is not before until", where="since")
    if asked_for.feed:
        caller.require_feed(asked_for.feed)
    allowed = allowed_feeds(caller)
    feeds = [asked_for.feed] if asked_for.feed else allowed or None
    with told_when_busy():
        found = await services.comparisons.duplicates(
            services.vectors, asked_for.since, asked_for.until, feeds, asked_for.threshold
        )
    ids = [image.image_id for group in found.groups for image in group.images]
    known = await ImageQueries(services.query).by_ids(ids, allowed)
    groups = []
    for group in found.groups:
        members = [known.get((image.feed, image.image_id)) for image in group.images]
        images = [member.summary() for member in members if member is not None]
        if len(images) > 1:
            groups.append(DuplicateGroup(images=images, similarity=group.similarity))
    return DuplicatesAnswer(groups=groups, looked_at=found.looked_at, complete=found.complete)
