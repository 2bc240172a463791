"""The contact sheet: one self-contained HTML page that shows what was seen in every picture.

It needs no server and no script: pictures are embedded as small data URIs, and boxes are drawn as
inline SVG over them, so they stay sharp at any zoom. What images said is untrusted text: the
template escapes everything, and the page's own security policy forbids scripts and the network.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from imagewire.demo.outcome import (
    DeadLetter,
    SqlAnswer,
    Summary,
    Tile,
    humanised,
    shown,
    verdict_counts,
)
from imagewire.demo.overlay import Overlay, overlay
from imagewire.demo.photos import CREDITS, Credit
from models.catalog import load_catalog
from models.device import choose_device
from models.precision import Precision
from operators.decode_limits import DecodeLimits
from operators.privacy_options import PrivacyOptions
from operators.thumbnail import Shown, Thumbnail, ThumbnailMaker, ThumbnailSet

_HEADINGS = {
    "photo": "Photos",
    "edit": "Near-duplicates",
    "text": "Pictures with text",
}

_PREVIEW_PIXELS = 640
"""The longer side of an embedded preview: sharp on a tile at twice the density, about 30 kB."""

_THUMBNAIL_PIXELS = 96


@dataclass(frozen=True, slots=True)
class _Shown:
    """A tile with what is computed for its display."""

    tile: Tile
    anchor: str
    preview: str
    thumbnail: str
    overlay: Overlay


def write_contact_sheet(
    path: Path,
    tiles: Sequence[Tile],
    summary: Summary,
    dead_letters: Sequence[DeadLetter] = (),
    answers: Sequence[SqlAnswer] = (),
    credits_: Sequence[Credit] = CREDITS,
    maker: ThumbnailMaker | None = None,
) -> None:
    """Write the page to `path`.

    Faces, and whatever else the settings name, are unrecognisable in previews before they are
    embedded; of blocked images everything is. A picture that cannot be opened any more is shown as
    an empty tile; its findings are shown all the same.

    Args:
        maker: makes the previews; one that hides faces when left out.

    Raises:
        OperatorError, ModelError: what must be hidden cannot be looked for.
    """
    previews = _previews(tiles, maker) if tiles else []
    prepared = [
        _prepare(index, tile, made)
        for index, (tile, made) in enumerate(zip(tiles, previews, strict=True))
    ]
    environment = _environment()
    style = environment.get_template("contact_sheet.css.j2").render()
    page = environment.get_template("contact_sheet.html.j2").render(
        style=style,
        style_digest=_digest(style),
        groups=_groups(prepared),
        by_name={item.tile.name: item for item in prepared},
        summary=summary,
        verdicts=verdict_counts(tiles),
        dead_letters=dead_letters,
        answers=answers,
        credits=credits_,
    )
    path.write_text(page, encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["humanised"] = humanised
    environment.filters["shown"] = shown
    environment.tests["figure"] = lambda value: (
        isinstance(value, (int, float)) and not isinstance(value, bool)
    )
    return environment


def _digest(style: str) -> str:
    """For the page's security policy: this style sheet may be applied, and no other."""
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()


def _groups(prepared: Sequence[_Shown]) -> list[tuple[str, list[_Shown]]]:
    order = list(_HEADINGS)

    def rank(item: _Shown) -> tuple[int, str]:
        kind = item.tile.kind
        return (order.index(kind) if kind in order else len(order), kind)

    return [
        (_HEADINGS.get(kind, kind.capitalize()), list(items))
        for (_, kind), items in groupby(sorted(prepared, key=rank), rank)
    ]


def preview_maker(
    options: PrivacyOptions,
    precision: Precision = "auto",
    catalogs: Sequence[Path] = (),
    objects: Mapping[str, Any] | None = None,
    limits: DecodeLimits | None = None,
) -> ThumbnailMaker:
    """Makes what the page shows of pictures. A processor is quick enough for so few.

    Raises:
        OperatorError, ModelError: what must be hidden cannot be looked for.
    """
    return ThumbnailMaker(
        options,
        choose_device("cpu", precision),
        load_catalog(catalogs),
        objects=objects,
        limits=limits,
        largest=_PREVIEW_PIXELS,
    )


def _previews(tiles: Sequence[Tile], maker: ThumbnailMaker | None) -> list[ThumbnailSet | None]:
    """The pictures of the tiles that can still be read, in both sizes."""
    contents = {index: content for index, tile in enumerate(tiles) if (content := _content(tile))}
    pictures = [
        Shown(content, tiles[index].findings, hidden=tiles[index].action == "block")
        for index, content in contents.items()
    ]
    sizes = [_PREVIEW_PIXELS, _THUMBNAIL_PIXELS]
    if maker is not None:
        made = maker.make(pictures, sizes)
    else:
        with preview_maker(PrivacyOptions()) as own:
            made = own.make(pictures, sizes)
    by_index = dict(zip(contents, made, strict=True))
    found = (by_index.get(index) for index in range(len(tiles)))
    return [one if isinstance(one, ThumbnailSet) else None for one in found]


def _content(tile: Tile) -> bytes:
    try:
        return tile.path.read_bytes()
    except OSError:
        return b""


def _prepare(index: int, tile: Tile, made: ThumbnailSet | None) -> _Shown:
    info = tile.findings.image
    # Boxes are in pixels of the decoded picture, which the findings know best.
    if info is not None:
        width, height = max(info.width, 1), max(info.height, 1)
    else:
        width, height = (made.width, made.height) if made else (4, 3)
    preview, thumbnail = map(_data_uri, made.thumbnails) if made else ("", "")
    return _Shown(tile, f"image-{index}", preview, thumbnail, overlay(tile.findings, width, height))


def _data_uri(thumbnail: Thumbnail) -> str:
    return f"data:{thumbnail.media_type};base64," + base64.b64encode(thumbnail.content).decode()
