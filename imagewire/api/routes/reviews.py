"""Reviews: what waits for people, their decisions, and how they agree with the rules."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body, Depends, Query

from imagewire.api.asked_image import allowed_feeds
from imagewire.api.image_cursor import CursorError, ImageCursor
from imagewire.api.json_values import json_value
from imagewire.api.keys import Caller, Scope, needs
from imagewire.api.problems import Problem, invalid
from imagewire.api.review_desk import Asked
from imagewire.api.review_models import (
    DecisionsAnswer,
    ManyDecisions,
    NextImage,
    OneDecision,
    QueueLength,
    ReviewQueue,
    ReviewStatistics,
    Undo,
    UndoAnswer,
    Why,
    WithdrawnDecision,
    made,
    queue_of,
    waiting_image,
)
from imagewire.api.services import Services, Shared
from imagewire.reviews_queue import statistics
from streams.record_fields import MAX_ID_LENGTH, RecordError, checked_name

router = APIRouter(tags=["reviews"])

ReviewerKey = Annotated[Caller, Depends(needs(Scope.REVIEW))]
Feeds = Annotated[
    list[Annotated[str, Query(max_length=128)]],
    Query(max_length=100, description="Of these feeds only; give it once for each."),
]
Reason = Annotated[
    Why | None,
    Query(description="policy: the policy asks for a person; audit: drawn to check rules."),
]
NO_FEEDS: list[str] = []
NONE_SKIPPED: list[str] = []


@router.get("/v1/review/queue", summary="The images that wait for a person")
async def list_waiting_images(
    services: Shared,
    caller: ReviewerKey,
    feed: Feeds = NO_FEEDS,
    why: Reason = None,
    cursor: Annotated[
        str | None, Query(max_length=4096, description="`next` of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Images on a page.")] = 50,
) -> ReviewQueue:
    """The longest waiting first; none is claimed by looking."""
    feeds = _feeds(caller, feed)
    after = None
    if cursor:
        try:
            known = ImageCursor.of(cursor)
        except CursorError as error:
            raise invalid(str(error), where="cursor") from error
        after = (known.event_time_ms, known.image_id)
    rows = await services.reviews.queue(feeds, why or "", limit + 1, after)
    following = None
    if len(rows) > limit:
        last = rows[limit - 1]
        waited_ms = round(last["kafka_time"].timestamp() * 1000)
        following = ImageCursor(waited_ms, last["image_id"], "").text()
    return ReviewQueue(
        images=[waiting_image(row) for row in rows[:limit]],
        next=following,
        waiting=await _length(services, feeds),
    )


@router.get("/v1/review/next", summary="The image to decide now")
async def claim_next_image(
    services: Shared,
    caller: ReviewerKey,
    feed: Feeds = NO_FEEDS,
    why: Reason = None,
    reviewer: Annotated[
        str | None,
        Query(min_length=1, max_length=128, description="For keys with the scope admin."),
    ] = None,
    skip: Annotated[
        list[Annotated[str, Query(max_length=MAX_ID_LENGTH)]],
        Query(max_length=100, description="Images to pass over: those left for later."),
    ] = NONE_SKIPPED,
) -> NextImage:
    """The image that has waited longest and that nobody else holds; it is yours until
    `claimed_until`, and comes again until you decide."""
    feeds = _feeds(caller, feed)
    row = await services.reviews.next(_reviewer(caller, reviewer), feeds, why or "", skip)
    return NextImage(
        image=None if row is None else waiting_image(row), waiting=await _length(services, feeds)
    )


@router.post("/v1/review/decisions", summary="Decide over images")
async def decide_over_images(
    services: Shared,
    caller: ReviewerKey,
    asked: Annotated[OneDecision | ManyDecisions, Body()],
) -> DecisionsAnswer:
    """Decide over one image or many. A decision holds for the image and for others with the same
    bytes; every worker knows it within a second."""
    each = asked.decisions if isinstance(asked, ManyDecisions) else [asked]
    for label in {label for one in each for label in one.labels}:
        _printable("labels", label)
    try:
        decisions, unknown = await services.reviews.decide(
            _reviewer(caller, asked.reviewer),
            [Asked(one.image_id, one.decision, one.reason, tuple(one.labels)) for one in each],
            allowed_feeds(caller),
        )
    except msgspec.ValidationError as error:
        raise invalid(str(error)) from error
    if not decisions:
        raise Problem(
            404,
            "unknown-image",
            "There is no such image",
            "none of these images is stored; look at the ids, or wait until their rows are written",
            unknown=unknown,
        )
    return DecisionsAnswer(decisions=[made(one) for one in decisions], unknown=unknown)


@router.post("/v1/review/undo", summary="Take decisions back")
async def take_decisions_back(
    services: Shared, caller: ReviewerKey, asked: Annotated[Undo | None, Body()] = None
) -> UndoAnswer:
    """Take back your last decision, or those on the images named: the policy's verdict stands
    again, and the image waits anew. The decision stays in the history."""
    asked = asked or Undo()
    back = await services.reviews.undo(
        _reviewer(caller, asked.reviewer), asked.ids, allowed_feeds(caller)
    )
    if not back:
        raise Problem(
            404,
            "nothing-to-undo",
            "There is no such decision",
            "you have decided none of these images, or have taken it back already; a decision that "
            "another program made is known here some seconds later",
        )
    return UndoAnswer(
        withdrawn=[
            WithdrawnDecision.model_validate(
                {"image_id": b.image_id, "decision": b.decision, "decision_id": b.decision_id}
            )
            for b in back
        ]
    )


@router.get("/v1/review/stats", summary="How people and rules agree")
async def review_statistics(services: Shared, caller: ReviewerKey) -> ReviewStatistics:
    """The queue, who decided how much, and how often people and rules agree."""
    caller.require_all_feeds()
    found: dict[str, list[dict[str, Any]]] = await services.asking(statistics)
    [queue] = found.pop("queue")
    return ReviewStatistics(
        queue=queue_of(queue),
        **{name: [json_value(row) for row in rows] for name, rows in found.items()},
    )


async def _length(services: Services, feeds: list[str]) -> QueueLength:
    return queue_of(await services.reviews.length(feeds))


def _feeds(caller: Caller, asked: list[str]) -> list[str]:
    """The feeds that are meant; empty for all.

    Raises:
        Problem: one of them is not for the caller.
    """
    named = [feed for feed in asked if feed]
    for feed in named:
        caller.require_feed(feed)
    return named or allowed_feeds(caller)


def _reviewer(caller: Caller, named: str | None) -> str:
    """Whose decision it is.

    Raises:
        Problem: a key may decide in its own name only.
    """
    if named is None or named == caller.name:
        return caller.name
    _printable("reviewer", named)
    if not caller.may(Scope.ADMIN):
        raise Problem(
            403,
            "reviewer-not-allowed",
            "That is not allowed",
            f"the key '{caller.name}' decides in its own name; leave `reviewer` out",
        )
    return named


def _printable(where: str, text: str) -> None:
    """Workers would refuse what cannot be printed, and say so where its sender does not look.

    Raises:
        Problem
    """
    try:
        checked_name(where, text, len(text))
    except RecordError as error:
        raise invalid(str(error), where=where) from error
