"""Routes that take the pieces of an address as they were sent: `a%2Fb` is one piece, `a/b` two.

Ids of images are their producers' own and may hold slashes. Starlette decodes an address before it
looks for a route, so that the image `x/picture` could not be told from the picture of `x`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

_SLASH = "\ud800"
"""Stands for an encoded slash while a route is looked for. No address can hold it, since half a
character cannot be encoded."""


class ExactRoute(APIRoute):
    """A route whose parameters may hold slashes, percent-encoded: `APIRouter(route_class=…)`."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        raw: bytes | None = scope.get("raw_path")
        if raw is None or b"%2f" not in raw.lower():
            return super().matches(scope)
        pieces = raw.decode("latin-1").split("?")[0].split("/")
        path = "/".join(unquote(piece).replace("/", _SLASH) for piece in pieces)
        match, child = super().matches({**scope, "path": path})
        parameters: dict[str, Any] = {
            name: value.replace(_SLASH, "/") if isinstance(value, str) else value
            for name, value in child.get("path_params", {}).items()
        }
        if "path_params" in child:
            child = {**child, "path_params": parameters}
        return match, child
