"""Bans: lists of known images, and what is on them."""

from __future__ import annotations

import base64
import binascii
import contextlib
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Body, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from imagewire.api.ban_desk import UnknownListError
from imagewire.api.keys import Caller, Scope, needs
from imagewire.api.problems import Problem, invalid
from imagewire.api.services import Services, Shared
from operators.ban_records import Banlist, BannedExemplar, BannedHash, BanRecord

router = APIRouter(tags=["bans"])

Reader = Annotated[Caller, Depends(needs(Scope.READ))]
Admin = Annotated[Caller, Depends(needs(Scope.ADMIN))]
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
ListName = Annotated[str, Path(pattern=_NAME, description="Name of the list.")]
Kind = Literal["pdq", "sha256", "exemplar"]
Hash = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$", description="64 hexadecimal digits.")]


class EntryCounts(BaseModel):
    """How many entries of each kind a list has."""

    pdq: int
    sha256: int
    exemplar: int


class ListSettings(BaseModel):
    """What a list asks for. Of a list that is there, what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=_NAME)
    owner: str | None = Field(None, max_length=200, description="Who answers for it.")
    reason: str | None = Field(None, max_length=200, description="Stands in findings.")
    action: Literal["allow", "review", "block"] | None = Field(
        None, description="What it asks the policy for; block for a new list."
    )
    enabled_ratio: float | None = Field(
        None, ge=0, le=1, description="Share of images that it is consulted for."
    )
    max_distance: int | None = Field(
        None, ge=0, le=31, description="Bits of 256 in which PDQ hashes may differ."
    )
    min_quality: int | None = Field(
        None, ge=0, le=100, description="Least PDQ quality of an image that is compared."
    )
    max_embedding_distance: float | None = Field(
        None, ge=0, le=1, description="Largest cosine distance to an exemplar."
    )


class ListShown(BaseModel):
    """A list."""

    name: str
    owner: str
    reason: str
    action: Literal["allow", "review", "block"]
    enabled_ratio: float
    max_distance: int
    min_quality: int
    max_embedding_distance: float
    created_at: str
    entries: EntryCounts | None = Field(None, description="Known some seconds after a change.")


class ListsAnswer(BaseModel):
    """Every list, by name."""

    lists: list[ListShown]


class EntryShown(BaseModel):
    """An entry of a list."""

    kind: Kind
    hash: str = Field(description="Of an exemplar: SHA-256 of the picture's file.")
    comment: str
    added_at: str
    model: str | None = Field(None, description="Of an exemplar: the embedder.")


class EntriesAnswer(BaseModel):
    """A page of entries, by kind and hash."""

    banlist: ListShown
    entries: list[EntryShown]
    next: str | None = Field(description="Give it as `cursor` to go on; null at the end.")


class NewEntries(BaseModel):
    """Images to ban."""

    model_config = ConfigDict(extra="forbid")

    pdq: list[Hash] = Field([], max_length=10_000)
    sha256: list[Hash] = Field([], max_length=10_000)
    image_ids: list[Annotated[str, Field(min_length=1, max_length=256)]] = Field(
        [],
        max_length=200,
        description="Stored images: by their bytes and their PDQ hashes, or by their embeddings.",
    )
    pictures: list[str] = Field(
        [], max_length=8, description="Files in base64; they are decoded as any stranger's."
    )
    exemplar: bool = Field(
        False,
        description="Ban what resembles the images and pictures, not them by their hashes.",
    )
    comment: str = Field("", max_length=500)


class EntriesAdded(BaseModel):
    """What was banned."""

    added: list[EntryShown]
    unknown: list[str] = Field(
        description="Ids of images that are not stored, or not with an embedding; not banned."
    )


class Removed(BaseModel):
    """How many records were taken away."""

    removed: int


@router.get("/v1/bans", summary="The lists of banned images")
async def list_banlists(services: Shared, caller: Reader) -> ListsAnswer:
    """Every list with its settings and how much is on it."""
    lists = await services.bans.lists()
    return ListsAnswer(lists=[_list(each, counts) for each, counts in lists])


@router.post("/v1/bans", summary="Make a list, or change its settings")
async def set_banlist(
    services: Shared, caller: Admin, asked: Annotated[ListSettings, Body()]
) -> ListShown:
    """Workers know within a second."""
    from imagewire.bans import now

    values: dict[str, Any] = {"name": asked.name, "created_at": now()}
    with contextlib.suppress(UnknownListError):  # else it is a new one
        values = msgspec.structs.asdict(await services.bans.list_named(asked.name))
    values |= asked.model_dump(exclude_none=True)
    banlist = msgspec.convert(values, Banlist)
    await services.bans.add([banlist])
    return _list(banlist, None)


@router.get("/v1/bans/{name}", summary="What is on a list")
async def list_banned_images(
    name: ListName,
    services: Shared,
    caller: Reader,
    kind: Annotated[Kind | None, Query(description="Of this kind only.")] = None,
    cursor: Annotated[
        str | None, Query(max_length=200, description="`next` of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Entries on a page.")] = 50,
) -> EntriesAnswer:
    """Entries by kind and hash, page by page. They tell of images of every feed."""
    caller.require_all_feeds()
    after = None
    if cursor:
        first, separator, digest = cursor.partition(":")
        if not separator:
            raise invalid("give `next` of an earlier page, unchanged", where="cursor")
        after = (first, digest)
    banlist = await _named(services, name)
    found = await services.bans.entries(name, kind, after, limit + 1)
    page = [_entry(record) for record in found[:limit]]
    more = len(found) > limit
    return EntriesAnswer(
        banlist=_list(banlist, None),
        entries=page,
        next=f"{page[-1].kind}:{page[-1].hash}" if more else None,
    )


@router.post("/v1/bans/{name}", summary="Ban images")
async def add_bans(
    name: ListName, services: Shared, caller: Admin, asked: Annotated[NewEntries, Body()]
) -> EntriesAdded:
    """Put images on a list: by hash, by the ids of stored images, or by their files. Workers know
    within a second."""
    from imagewire.bans import UnusablePictureError, now

    if not (asked.pdq or asked.sha256 or asked.image_ids or asked.pictures):
        raise invalid("name pdq, sha256, image_ids or pictures")
    await _named(services, name)
    about = {"list": name, "comment": asked.comment, "added_at": now()}
    records: list[BanRecord] = [
        BannedHash(kind=kind, hash=digest.lower(), **about)  # type: ignore[arg-type]
        for kind, digests in (("pdq", asked.pdq), ("sha256", asked.sha256))
        for digest in digests
    ]
    for number, text in enumerate(asked.pictures):
        try:
            content = base64.b64decode(text, validate=True)
            records += await services.bans.of_picture(
                name, content, asked.comment, exemplar=asked.exemplar
            )
        except (binascii.Error, ValueError) as error:
            raise invalid("is no base64", where=f"pictures.{number}") from error
        except UnusablePictureError as error:
            raise Problem(
                422, "unusable-picture", "The picture cannot be used", str(error)
            ) from error
    unknown: list[str] = []
    if asked.image_ids:
        of_images, unknown = await services.bans.of_images(
            name, asked.image_ids, asked.comment, exemplar=asked.exemplar
        )
        records += of_images
    if not records:
        raise Problem(
            404,
            "unknown-image",
            "There is no such image",
            "none of these images is stored with its "
            f"{'embedding' if asked.exemplar else 'hashes'}; nothing was banned",
            unknown=unknown,
        )
    await services.bans.add(records)
    return EntriesAdded(added=[_entry(record) for record in records], unknown=unknown)


@router.delete("/v1/bans/{name}", summary="Take a list away")
async def remove_banlist(name: ListName, services: Shared, caller: Admin) -> Removed:
    """Take a list away, with all that is on it."""
    await _named(services, name)
    return Removed(removed=await services.bans.remove(name))


@router.delete("/v1/bans/{name}/{kind}/{digest}", summary="Take an entry away")
async def remove_ban(
    name: ListName,
    kind: Kind,
    digest: Annotated[str, Path(pattern=r"^[0-9a-fA-F]{64}$", description="Its hash.")],
    services: Shared,
    caller: Admin,
) -> Removed:
    """Take one entry of a list away."""
    await _named(services, name)
    removed = await services.bans.remove(name, kind, digest.lower())
    if not removed:
        raise Problem(
            404, "unknown-ban", "There is no such entry", f"{kind} {digest} is not on '{name}'"
        )
    return Removed(removed=removed)


async def _named(services: Services, name: str) -> Banlist:
    try:
        return await services.bans.list_named(name)
    except UnknownListError:
        raise Problem(
            404,
            "unknown-list",
            "There is no such list",
            f"there is no list '{name}'; make it with POST /v1/bans",
        ) from None


def _list(banlist: Banlist, counts: dict[str, int] | None) -> ListShown:
    entries = None if counts is None else EntryCounts(**counts)
    return ListShown(**msgspec.structs.asdict(banlist), entries=entries)


def _entry(record: BanRecord) -> EntryShown:
    assert isinstance(record, BannedHash | BannedExemplar)
    kind: Kind = "exemplar" if isinstance(record, BannedExemplar) else record.kind
    model = record.model if isinstance(record, BannedExemplar) else None
    return EntryShown(
        kind=kind,
        hash=record.hash,
        comment=record.comment,
        added_at=record.added_at,
        model=model,
    )
