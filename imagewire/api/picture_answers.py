"""Pictures as HTTP answers, and what may be wrong with them as problems."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.responses import Response

from imagewire.api.keys import Caller, Scope
from imagewire.api.problems import MEDIA_TYPE, Problem
from imagewire.api.work_thread import BusyError

LARGEST = 1280
"""Longer side in pixels of the largest picture that is shown; the thumbnail maker's, which is not
asked because it would load torch."""

_PROBLEM: dict[str, Any] = {"content": {MEDIA_TYPE: {"schema": {"type": "object"}}}}
PICTURE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The picture.",
        "content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}},
    },
    304: {"description": "It is what If-None-Match names."},
    410: {
        "description": "The picture is no longer where it was, or another one is there.",
        **_PROBLEM,
    },
    502: {"description": "Whoever has the picture does not give it.", **_PROBLEM},
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


@contextmanager
def told_when_busy() -> Iterator[None]:
    """Answers `BusyError` as a problem with Retry-After."""
    try:
        yield
    except BusyError as error:
        raise Problem(
            503,
            "busy",
            "Too much is asked at once",
            str(error),
            headers={"Retry-After": str(error.retry_after)},
        ) from error
