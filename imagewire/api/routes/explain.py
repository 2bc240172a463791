"""Heat maps: which parts of an image a model went by."""

from __future__ import annotations

import hashlib
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
    told_when_busy,
    unchanged,
)
from imagewire.api.services import Shared
from imagewire.api.shown_pictures import Look, content_of, shown

router = APIRouter(tags=["pictures"], route_class=ExactRoute)


@router.get(
    "/v1/images/{image_id}/explain",
    summary="A heat map of what a model went by",
    response_class=Response,
    responses=PICTURE,
)
async def explain_image(
    image_id: ImageId,
    services: Shared,
    caller: Annotated[Caller, Depends(needs(Scope.READ))],
    label: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=256,
            description="A score (Grad-CAM of its classifier), or a kind of object found in the "
            "image (EigenCAM of the detector, inside its boxes). Without it: whatever the "
            "detector looks at.",
            examples=["nsfw"],
        ),
    ] = None,
    size: Annotated[int, Query(ge=16, le=LARGEST, description="The longer side in pixels.")] = 640,
    unblurred: Annotated[bool, Query(description="Hide nothing. Needs the scope review.")] = False,
    feed: Annotated[
        str | None,
        Query(max_length=128, description="If several feeds use the id; else the latest."),
    ] = None,
    tag: Annotated[str | None, Header(alias="If-None-Match", max_length=1024)] = None,
) -> Response:
    """A WebP of the image, the hotter the more a place counts. The models are those that the
    settings name now, whichever found what is stored. One map is made at a time, apart from the
    stream: 503 with Retry-After says that others wait already."""
    if unblurred:
        require_unblurring(caller)
    known = await known_image(services, caller, image_id, feed)
    look = Look(size, unblurred)
    current = hashlib.sha256(f"{look.tag(known)} {label}".encode()).hexdigest()[:32]
    if unchanged(tag, current):
        return picture_response(None, current)
    pictures = services.pictures
    content = await content_of(pictures, known)
    picture = await shown(pictures, known, look, content)
    with told_when_busy():
        made = await services.heat_maps.overlay(content, known, label, picture)
    return picture_response(made, current)
