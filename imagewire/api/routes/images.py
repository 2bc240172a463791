"""Images: pages of them, and everything known of one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from imagewire.api.asked_image import ImageId, Moment, allowed_feeds, known_image, milliseconds
from imagewire.api.exact_route import ExactRoute
from imagewire.api.image_cursor import CursorError, ImageCursor
from imagewire.api.image_models import ImageDetail, ImagePage, Verdict
from imagewire.api.image_queries import FailedImage, ImageFilter, ImageQueries, KnownImage
from imagewire.api.keys import Caller, Scope, needs
from imagewire.api.problems import Problem, invalid
from imagewire.api.services import Shared

router = APIRouter(tags=["images"], route_class=ExactRoute)

Reader = Annotated[Caller, Depends(needs(Scope.READ))]


@router.get("/v1/images", summary="List images, newest first")
async def list_images(
    services: Shared,
    caller: Reader,
    feed: Annotated[str | None, Query(max_length=128, description="Of this feed only.")] = None,
    verdict: Annotated[Verdict | None, Query(description="With this verdict in force.")] = None,
    label: Annotated[
        str | None, Query(max_length=256, description="In which such an object was found.")
    ] = None,
    text: Annotated[
        str | None,
        Query(max_length=256, description="In which this was read, as a part of a line."),
    ] = None,
    since: Annotated[Moment | None, Query(description="Captured at or after this.")] = None,
    until: Annotated[Moment | None, Query(description="Captured before this.")] = None,
    cursor: Annotated[
        str | None, Query(max_length=4096, description="`next` of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Images on a page.")] = 50,
) -> ImagePage:
    """A page of images. Follow `next` for the rest: nothing comes twice or is left out, however
    many images arrive in between."""
    if feed:
        caller.require_feed(feed)
    try:
        after = ImageCursor.of(cursor) if cursor else None
    except CursorError as error:
        raise invalid(str(error), where="cursor") from error
    chosen = ImageFilter(
        allowed=allowed_feeds(caller),
        feed=feed or "",
        verdict=verdict,
        label=label or "",
        text=text or "",
        since_ms=milliseconds(since),
        until_ms=milliseconds(until),
    )
    images, following = await ImageQueries(services.query).page(chosen, after, limit)
    return ImagePage(
        images=[image.summary() for image in images],
        next=following.text() if following else None,
    )


@router.get("/v1/images/{image_id}", summary="Everything known of one image")
async def show_image(
    image_id: ImageId,
    services: Shared,
    caller: Reader,
    feed: Annotated[
        str | None,
        Query(max_length=128, description="If several feeds use the id; else the latest."),
    ] = None,
) -> ImageDetail:
    """What was found in an image, every verdict over it, and why it failed if it did."""
    queries = ImageQueries(services.query)
    allowed = allowed_feeds(caller)
    failed = await queries.failure(image_id, allowed, feed or "")
    try:
        known = await known_image(services, caller, image_id, feed)
    except Problem:
        if failed is None:
            raise
        known = None
    if known is None:
        assert failed is not None
        return ImageDetail(
            image=failed.summary,
            findings=None,
            history=[],
            failure=failed.failure,
            neighbours="/v1/search",
        )
    return ImageDetail(
        image=known.image.summary(),
        findings=known.record,
        history=await queries.history(known, allowed, caller.may(Scope.REVIEW)),
        failure=failed.failure if failed and _stands(failed, known) else None,
        neighbours="/v1/search",
    )


def _stands(failed: FailedImage, known: KnownImage) -> bool:
    """Whether the image failed after it had been analysed."""
    return failed.summary.feed == known.image.key.feed and failed.version > known.version
