"""Images into the stream: a picture in a form, or references in JSON."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response

from imagewire.api.keys import Caller, Scope, needs
from imagewire.api.limits import too_large
from imagewire.api.outcomes import Expected, Outcome
from imagewire.api.problems import Problem, invalid
from imagewire.api.publications import (
    Publication,
    Published,
    picture_publication,
    publish,
    reference_publication,
)
from imagewire.api.publishing_schemas import BATCH, ONE
from imagewire.api.services import Services, Shared
from operators.frame import Lane

router = APIRouter(tags=["publishing"])

Publisher = Annotated[Caller, Depends(needs(Scope.PUBLISH))]
_WAIT = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)(ms|s)?", re.ASCII)
_FIELDS = frozenset({"picture", "id", "feed", "captured_at", "lane", "metadata"})


@router.post("/v1/images", summary="Publish an image", status_code=202, openapi_extra=ONE)
async def publish_image(
    request: Request,
    services: Shared,
    caller: Publisher,
    wait: Annotated[
        str | None,
        Query(
            pattern=r"^[0-9]{1,6}(\.[0-9]{1,3})?(ms|s)?$",
            max_length=14,
            description="Wait so long for what is found, such as 5s or 800ms; at most "
            "api.max_wait. What is not ready then is null in the answer, and comes all the same.",
            examples=["5s"],
        ),
    ] = None,
) -> Response:
    """Put an image on Kafka: as a picture in a form (multipart/form-data), or as a reference
    (application/json). The answer comes when every replica has it, so that it will not be lost."""
    seconds = _seconds(wait, services.settings.api.max_wait)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        publication = await _in_form(request, services, caller)
    elif kind == "application/json":
        fields = _json(await request.body())
        if not isinstance(fields, dict):
            raise invalid('an image reference is an object such as {"uri": "https://…"}')
        publication = reference_publication(fields, caller, "the reference")
    else:
        raise Problem(
            415,
            "unknown-body",
            "This kind of body is not taken",
            "send a picture as multipart/form-data, or a reference as application/json",
        )
    async with AsyncExitStack() as stack:
        expected: Expected | None = None
        if seconds:
            # Before the image is published: what is found is not to be missed.
            await services.outcomes.ready()
            expected = stack.enter_context(services.outcomes.expecting(publication.image_id))
        producer = await services.producer()
        [published] = await publish(producer, services.settings.kafka, [publication])
        if isinstance(published, Problem):
            raise published
        outcome: Outcome | None = None
        if expected is not None:
            place = (published.topic, published.partition, published.offset)
            outcome = await _unless_closing(services, expected.outcome(place, seconds))
    return _accepted({**_place(published), **_outcome(outcome)})


@router.post(
    "/v1/images:batch",
    summary="Publish many image references",
    status_code=202,
    openapi_extra=BATCH,
)
async def publish_batch(request: Request, services: Shared, caller: Publisher) -> Response:
    """Put references on Kafka, in their order. All are checked before the first is published: if
    one is wrong, none is. The answer comes when every replica has all of them."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(
            415, "unknown-body", "This kind of body is not taken", "send application/json"
        )
    body = _json(await request.body())
    images = body.get("images") if isinstance(body, dict) else None
    most = services.settings.api.max_batch
    if not isinstance(images, list) or not 1 <= len(images) <= most:
        raise invalid(f"'images' is a list of 1 to {most} image references", where="images")
    publications = await _all_checked(images, caller)
    producer = await services.producer()
    results = await publish(producer, services.settings.kafka, publications)
    problems = [result for result in results if isinstance(result, Problem)]
    places = [
        _place(result) if isinstance(result, Published) else {"image_id": each.image_id}
        for each, result in zip(publications, results, strict=True)
    ]
    if problems:
        problem = problems[0]
        problem.extra["images"] = places
        raise problem
    return _accepted({"images": places})


async def _all_checked(images: list[Any], caller: Caller) -> list[Publication]:
    """The records of all references.

    Raises:
        Problem: 422, with what is wrong with each; or 403.
    """
    made, errors = [], []
    for number, fields in enumerate(images):
        if number % 100 == 99:
            await asyncio.sleep(0)  # thousands at once would hold up everybody else
        where = f"images.{number}"
        if not isinstance(fields, dict):
            errors.append({"where": where, "what": "an image reference is an object"})
            continue
        try:
            made.append(reference_publication(fields, caller, where))
        except Problem as problem:
            if problem.status != 422:
                raise
            errors += problem.extra.get("errors", [])
    if errors:
        raise Problem(
            422,
            "invalid-image",
            "The image cannot be published",
            f"{len(errors)} of {len(images)} references are wrong; nothing was published",
            errors=errors[:100],
        )
    return made


async def _in_form(request: Request, services: Services, caller: Caller) -> Publication:
    async with request.form(max_files=1, max_fields=16, max_part_size=256 * 1024) as form:
        unknown = sorted(set(form) - _FIELDS)
        if unknown:
            raise invalid(f"unknown fields; these are known: {', '.join(sorted(_FIELDS))}")
        picture = form.get("picture")
        if not isinstance(picture, UploadFile):
            raise invalid("the form has no file 'picture'", where="picture")
        most = services.settings.fetch.max_bytes
        if (picture.size or 0) > most:
            raise too_large(most)
        content = await picture.read()
        if not content:
            raise invalid("the picture has 0 bytes", where="picture")
        metadata = _json(_text(form, "metadata") or "{}", "metadata")
        if not isinstance(metadata, dict):
            raise invalid("metadata is an object in JSON", where="metadata")
        return picture_publication(
            content,
            caller,
            image_id=_text(form, "id"),
            feed=_text(form, "feed"),
            captured_at=_text(form, "captured_at"),
            lane=_lane(_text(form, "lane")),
            content_type=picture.content_type,
            file_name=picture.filename,
            metadata=metadata,
        )


def _text(form: FormData, name: str) -> str | None:
    value = form.get(name)
    if isinstance(value, UploadFile):
        raise invalid(f"'{name}' is text, not a file", where=name)
    return value or None


def _lane(text: str | None) -> Lane | None:
    if text is None:
        return None
    if text not in ("live", "bulk"):
        raise invalid("lane is 'live' or 'bulk'", where="lane")
    return Lane(text)


def _json(content: bytes | str, where: str = "body") -> Any:
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise invalid(f"this is no JSON: {error}", where=where) from error


def _seconds(wait: str | None, longest: float) -> float:
    match = _WAIT.fullmatch(wait or "")
    if match is None:
        return 0.0
    seconds = float(match[1]) / (1000 if match[2] == "ms" else 1)
    if seconds > longest:
        raise invalid(f"wait is at most {longest:g}s (api.max_wait)", where="query.wait")
    return seconds


async def _unless_closing(services: Services, wait: Any) -> Outcome | None:
    """What is waited for, or None as soon as the process is to end."""
    waiting = asyncio.ensure_future(wait)
    closing = asyncio.ensure_future(services.closing.wait())
    try:
        await asyncio.wait([waiting, closing], return_when=asyncio.FIRST_COMPLETED)
        outcome: Outcome | None = waiting.result() if waiting.done() else None
        return outcome
    finally:
        waiting.cancel()
        closing.cancel()


def _place(published: Published) -> dict[str, Any]:
    return {
        "image_id": published.image_id,
        "topic": published.topic,
        "partition": published.partition,
        "offset": published.offset,
    }


def _outcome(outcome: Outcome | None) -> dict[str, Any]:
    if outcome is None:
        return {"findings": None, "failure": None}
    findings = None if outcome.findings is None else msgspec.Raw(outcome.findings)
    return {"findings": findings, "failure": outcome.failure}


def _accepted(content: Mapping[str, Any]) -> Response:
    return Response(msgspec.json.encode(content), 202, media_type="application/json")
