"""Pictures as HTTP answers, and what may be wrong with them as problems."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.responses import Response

from imagewire.api.keys import Caller, Scope
from imagewire.api.problems import Problem
from imagewire.api.work_thread import BusyError
from models.errors import ModelError

logger = logging.getLogger(__name__)

PICTURE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The picture.",
        "content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}},
    },
    304: {"description": "It is what If-None-Match names."},
    410: {"description": "The picture is no longer where it was, or another one is there."},
    502: {"description": "Whoever has the picture does not give it."},
    503: {"description": "It cannot be made at the moment."},
}
"""The answers of a route that shows a picture, for the API's description."""


def picture_response(content: bytes | None, tag: str) -> Response:
    """The picture; 304 if `content` is None.

    Browsers may keep it, and have to ask each time whether it may still be shown: it may have been
    blocked or erased.
    """
    headers = {"ETag": f'"{tag}"', "Cache-Control": "private, no-cache", "Vary": "Authorization"}
    if content is None:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type="image/webp", headers=headers)


def unchanged(given: str | None, tag: str) -> bool:
    """Whether the client has the picture already, by its If-None-Match."""
    tags = [each.strip().removeprefix("W/") for each in (given or "").split(",")]
    return f'"{tag}"' in tags


def require_unblurring(caller: Caller) -> None:
    """Raises `Problem` 403 unless the caller may see what is hidden from others."""
    if not caller.may(Scope.REVIEW):
        raise Problem(
            403,
            "scope-needed",
            "That is not allowed",
            f"the key '{caller.name}' lacks the scope review, which unblurred pictures need",
            scopes=[Scope.REVIEW.value],
        )


def busy(error: BusyError) -> Problem:
    """503: too many wait for the same."""
    return Problem(
        503,
        "busy",
        "Too much is asked at once",
        str(error),
        headers={"Retry-After": str(error.retry_after)},
    )


@contextmanager
def picture_problems() -> Iterator[None]:
    """Answers what making a picture raises as a `Problem`. Without what finds faces, for instance,
    no picture is shown at all."""
    # operators.operator imports torch, which takes seconds and is loaded once a picture is made
    from operators.operator import OperatorError

    try:
        yield
    except BusyError as error:
        raise busy(error) from error
    except (OperatorError, ModelError) as error:
        logger.error("no picture can be shown: %s", error)
        raise Problem(
            503,
            "pictures-unavailable",
            "No picture can be shown here",
            "what must be hidden in pictures cannot be looked for; the service's log says why",
        ) from error
