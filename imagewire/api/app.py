"""Puts the application together: every router of `imagewire/api/routes`, the console, the gate."""

from __future__ import annotations

import pkgutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

import imagewire.api.routes
from imagewire.api.gate import Gate
from imagewire.api.problems import MEDIA_TYPE, answer_with_problems
from imagewire.api.services import Services

CONSOLE = Path(__file__).parent.parent / "console"

_DESCRIPTION = """\
Publish images, look at what was found, search, decide, and ask in SQL.

Times are RFC 3339 in UTC with milliseconds. Errors are `application/problem+json`; their `type` is
`urn:imagewire:problem:` and a word that stays the same. Every answer carries `X-Request-Id`.
"""


def make_app(services: Services) -> FastAPI:
    """The application. It starts and stops `services` with itself."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with services:
            yield

    app = FastAPI(
        title="Imagewire",
        version=version("imagewire"),
        description=_DESCRIPTION,
        license_info={"name": "AGPL-3.0-or-later", "identifier": "AGPL-3.0-or-later"},
        # The pages that show it load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        lifespan=lifespan,
        responses=_problems(),
        generate_unique_id_function=lambda route: route.name,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.services = services
    answer_with_problems(app)
    for router in _routers():
        app.include_router(router)
    console = _Console(directory=CONSOLE, html=True, check_dir=False)
    app.router.routes.append(_BesideTheApi("/", console, name="console"))
    app.add_middleware(
        Gate, settings=services.settings.api, keys=services.keys, registry=services.registry
    )
    return app


def _routers() -> Iterator[APIRouter]:
    """The routers of the modules in `routes`, in the order of their names."""
    for module in sorted(pkgutil.iter_modules(imagewire.api.routes.__path__), key=lambda m: m.name):
        router = import_module(f"imagewire.api.routes.{module.name}").router
        assert isinstance(router, APIRouter)
        yield router


class _BesideTheApi(Mount):
    """Takes every address but those of the API, of which an unknown one is answered with 404 and a
    wrong method with 405."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope.get("path", "").startswith("/v1/"):
            return Match.NONE, {}
        return super().matches(scope)


class _Console(StaticFiles):
    """The console's files. Revalidated at each visit: a new version must not meet old modules."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"cache-control", b"no-cache"))
            await send(message)

        await super().__call__(scope, receive, answer)


def _problems() -> dict[int | str, dict[str, Any]]:
    """What every operation may answer, for the OpenAPI."""
    content = {"content": {MEDIA_TYPE: {"schema": _PROBLEM_SCHEMA}}}
    return {
        status: {"description": description, **content}
        for status, description in (
            (400, "The request cannot be read."),
            (401, "A key is needed."),
            (403, "The key does not open this, or the request comes from a foreign page."),
            (404, "There is no such thing."),
            (413, "The request is too large."),
            (422, "The request is not valid."),
            (429, "Too many requests; Retry-After says when."),
            (500, "A defect; the log has more under the id in `instance`."),
            (503, "A store does not answer, or too much is asked; Retry-After says when."),
        )
    }


_PROBLEM_SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "description": "urn:imagewire:problem: and a stable word."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What was wrong this time, and what to do."},
        "instance": {"type": "string", "description": "The request's id."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"where": {"type": "string"}, "what": {"type": "string"}},
            },
        },
    },
    "example": {
        "type": "urn:imagewire:problem:unknown-image",
        "title": "There is no such image",
        "status": 404,
        "detail": "no image 'camera-7/000123' is stored",
        "instance": "8a1f0c3b9d5e4f67a2b1c0d9",
    },
}
