"""Feeds, and what became of their images."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from imagewire.api.asked_image import allowed_feeds
from imagewire.api.image_models import FeedsAnswer
from imagewire.api.image_queries import ImageQueries
from imagewire.api.keys import Caller, Scope, needs
from imagewire.api.services import Shared

router = APIRouter(tags=["images"])


@router.get("/v1/feeds", summary="List feeds")
async def list_feeds(
    services: Shared, caller: Annotated[Caller, Depends(needs(Scope.READ))]
) -> FeedsAnswer:
    """All feeds that have images, those with the latest image first."""
    feeds = await ImageQueries(services.query).feeds(allowed_feeds(caller))
    return FeedsAnswer(feeds=feeds)
