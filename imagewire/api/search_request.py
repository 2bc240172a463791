"""What a search asks for, in JSON or in a form, and its description for the OpenAPI."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from starlette.datastructures import UploadFile

from imagewire.api.asked_image import Moment
from imagewire.api.limits import too_large
from imagewire.api.problems import Problem, invalid

MOST_RESULTS = 1000

_WAYS = ("image_id", "vector", "picture", "text")


class SearchRequest(BaseModel):
    """What to look for, by exactly one of `image_id`, `vector`, `picture` and `text`, and among
    which images."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"image_id": "bus-1", "limit": 20, "min_score": 0.5}]},
    )

    image_id: str | None = Field(
        None, min_length=1, max_length=256, description="Of a stored image, which is left out."
    )
    vector: Annotated[list[FiniteFloat], Field(min_length=1, max_length=65_536)] | None = Field(
        None, description="Of the embedder in force."
    )
    picture: str | None = Field(
        None, min_length=1, description="The bytes of a picture, in base64. Forms take larger ones."
    )
    text: str | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description="A description, if the embedder in force understands words.",
    )
    limit: int = Field(20, ge=1, le=MOST_RESULTS, description="Images at most.")
    feed: str | None = Field(None, max_length=128, description="Of this feed only.")
    verdict: Literal["allow", "review", "block"] | None = Field(
        None, description="With this verdict in force."
    )
    labels: list[Annotated[str, Field(max_length=256)]] = Field(
        [], max_length=20, description="In which every one of these objects was found."
    )
    since: Moment | None = Field(None, description="Captured at or after this.")
    until: Moment | None = Field(None, description="Captured before this.")
    min_score: float | None = Field(
        None, ge=-1, le=1, description="Of at least this cosine similarity."
    )


class Asked(BaseModel):
    """A search that was read. `content`: the bytes of its picture, if it is by one."""

    model_config = ConfigDict(frozen=True)

    request: SearchRequest
    content: bytes | None


async def asked(request: Request, most_bytes: int) -> Asked:
    """Read a search.

    Args:
        most_bytes: that a picture may have.

    Raises:
        Problem, RequestValidationError: it cannot be read, or says too much or too little.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        fields, content = await _form(request, most_bytes)
        search = _checked(fields, form=True)
    elif kind == "application/json":
        search = _checked(await request.body())
        content = None if search.picture is None else _decoded(search.picture, most_bytes)
    else:
        raise Problem(
            415,
            "unknown-body",
            "This kind of body is not taken",
            "send application/json, or a picture as multipart/form-data",
        )
    given = [way for way in _WAYS if getattr(search, way) is not None]
    if content is not None and "picture" not in given:
        given.append("picture")
    if len(given) != 1:
        said = f"; {' and '.join(given)} were given" if given else ""
        raise invalid(
            f"say what to look for by exactly one of {', '.join(_WAYS)}{said}", where="body"
        )
    return Asked(request=search, content=content)


async def _form(request: Request, most_bytes: int) -> tuple[dict[str, Any], bytes | None]:
    async with request.form(max_files=1, max_fields=32, max_part_size=256 * 1024) as form:
        fields: dict[str, Any] = {}
        content: bytes | None = None
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if name != "picture":
                    raise invalid(
                        f"the file '{name[:40]}' is not known; send 'picture'", where=name
                    )
                if (value.size or 0) > most_bytes:
                    raise too_large(most_bytes)
                content = await value.read()
                if not content:
                    raise invalid("the picture has 0 bytes", where="picture")
            elif name == "labels":
                fields.setdefault("labels", []).append(value)
            elif name in fields:
                raise invalid(f"'{name[:40]}' stands in the form twice", where=name)
            elif name in ("picture", "vector"):
                raise invalid(f"in a form, '{name}' cannot be text", where=name)
            else:
                fields[name] = value
        return fields, content


def _checked(given: bytes | dict[str, Any], form: bool = False) -> SearchRequest:
    try:
        if isinstance(given, bytes):
            return SearchRequest.model_validate_json(given)
        return SearchRequest.model_validate(given)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError(
            [{**each, "loc": ("body", *each["loc"])} for each in errors]
        ) from None


def _decoded(text: str, most_bytes: int) -> bytes:
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("the picture is not in base64", where="body.picture") from error
    if len(content) > most_bytes:
        raise too_large(most_bytes)
    return content


def _form_schema() -> dict[str, Any]:
    properties = dict(SearchRequest.model_json_schema()["properties"])
    properties.pop("vector")
    properties["picture"] = {
        "type": "string",
        "format": "binary",
        "description": "A file: the picture to look for.",
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


SEARCH: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": SearchRequest.model_json_schema()},
            "multipart/form-data": {"schema": _form_schema()},
        },
    },
    "responses": {"415": {"description": "The body is of another kind."}},
}
"""The description of the route's body, which is read by hand since it may be of two kinds."""
