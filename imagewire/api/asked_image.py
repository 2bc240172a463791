"""What a request asks for: an image by its id, a moment, the feeds that its caller may see."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Path
from pydantic import AfterValidator, AwareDatetime, WithJsonSchema

from imagewire.api.image_queries import EARLIEST_MS, LATEST_MS, ImageQueries, KnownImage
from imagewire.api.keys import Caller
from imagewire.api.problems import Problem
from imagewire.api.services import Services

ImageId = Annotated[
    str,
    Path(
        min_length=1,
        max_length=256,
        description="The image's id. What is no letter, digit, - . _ or ~ is percent-encoded.",
        examples=["bus-1"],
    ),
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _storable(moment: datetime) -> datetime:
    if not EARLIEST_MS <= _milliseconds(moment) <= LATEST_MS:
        raise ValueError("give a time between 1900 and 2299")
    return moment


def _milliseconds(moment: datetime) -> int:
    # Not `timestamp()`: as a float it is a millisecond off at times.
    passed = moment - _EPOCH
    return passed.days * 86_400_000 + passed.seconds * 1000 + passed.microseconds // 1000


Moment = Annotated[
    AwareDatetime,
    AfterValidator(_storable),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-01-31T08:15:00Z"]}),
]
"""A time with its offset from UTC, which event times can have."""


def milliseconds(moment: datetime | None) -> int | None:
    """Milliseconds since the epoch."""
    return None if moment is None else _milliseconds(moment)


def allowed_feeds(caller: Caller) -> list[str]:
    """The feeds that `caller` may see; empty for all."""
    return [] if caller.feeds is None else sorted(caller.feeds)


async def known_image(
    services: Services, caller: Caller, image_id: str, feed: str | None = None
) -> KnownImage:
    """The image with this id that the caller may see.

    Raises:
        Problem: 404, also for one of a feed that the caller may not see: whether there is such an
            image is part of what the caller must not know.
    """
    known = await ImageQueries(services.query).image(image_id, allowed_feeds(caller), feed or "")
    if known is None:
        raise Problem(
            404,
            "unknown-image",
            "There is no such image",
            "no image with this id has findings; one that was just published appears within "
            "seconds, and one that expired or was erased is gone",
        )
    return known
