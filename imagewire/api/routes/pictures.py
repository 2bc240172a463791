"""Pictures of stored images, made so that they may leave, and with what was found drawn in them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from starlette.responses import Response

from imagewire.api.asked_image import ImageId, known_image
from imagewire.api.exact_route import ExactRoute
from imagewire.api.keys import Caller, Scope, needs
from imagewire.api.picture_answers import (
    LARGEST,
    PICTURE,
    picture_response,
    require_unblurring,
    unchanged,
)
from imagewire.api.picture_drawing import Drawn
from imagewire.api.services import Services, Shared
from imagewire.api.shown_pictures import Look, picture_of

router = APIRouter(tags=["pictures"], route_class=ExactRoute)

Reader = Annotated[Caller, Depends(needs(Scope.READ))]
Size = Annotated[
    int,
    Query(ge=16, le=LARGEST, description="The longer side in pixels; a smaller picture keeps its."),
]
Feed = Annotated[
    str | None,
    Query(max_length=128, description="If several feeds use the id; else the latest."),
]
Unblurred = Annotated[
    bool,
    Query(description="Hide nothing, not even of blocked pictures. Needs the scope review."),
]
Tag = Annotated[str | None, Header(alias="If-None-Match", max_length=1024)]


@router.get(
    "/v1/images/{image_id}/picture",
    summary="The picture, with what is private hidden",
    response_class=Response,
    responses=PICTURE,
)
async def show_picture(
    image_id: ImageId,
    services: Shared,
    caller: Reader,
    size: Size = 320,
    unblurred: Unblurred = False,
    feed: Feed = None,
    tag: Tag = None,
) -> Response:
    """A WebP of the image. Faces, and what else the settings name, cannot be recognised in it;
    of a blocked image nothing can. It is made from the image's bytes, which are fetched again from
    where they came, so it can be shown as long as they are there."""
    return await _answer(services, caller, image_id, feed, Look(size, unblurred), tag)


@router.get(
    "/v1/images/{image_id}/annotated",
    summary="The picture with what was found drawn over it",
    response_class=Response,
    responses=PICTURE,
)
async def show_annotated(
    image_id: ImageId,
    services: Shared,
    caller: Reader,
    size: Size = 640,
    boxes: Annotated[bool, Query(description="Objects and faces.")] = True,
    text: Annotated[bool, Query(description="Lines of text.")] = True,
    scores: Annotated[bool, Query(description="Scores of the whole image.")] = True,
    unblurred: Unblurred = False,
    feed: Feed = None,
    tag: Tag = None,
) -> Response:
    """As the picture, with objects, lines of text and scores drawn over it."""
    look = Look(size, unblurred, Drawn(boxes=boxes, text=text, scores=scores))
    return await _answer(services, caller, image_id, feed, look, tag)


async def _answer(
    services: Services,
    caller: Caller,
    image_id: str,
    feed: str | None,
    look: Look,
    tag: str | None,
) -> Response:
    if look.unblurred:
        require_unblurring(caller)
    # Asked for each time, so that what was erased or blocked is gone from every cache at once.
    known = await known_image(services, caller, image_id, feed)
    current = look.tag(known)
    if unchanged(tag, current):
        return picture_response(None, current)
    return picture_response(await picture_of(services.pictures, known, look), current)
