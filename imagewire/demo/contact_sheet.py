"""The contact sheet: one self-contained HTML page that shows what was seen in every picture.

It needs no server and no script: pictures are embedded as small data URIs, and boxes are drawn as
inline SVG over them, so they stay sharp at any zoom. What images said is untrusted text: the
template escapes everything, and the page's own security policy forbids scripts and the network.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image, ImageFilter, ImageOps

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
) -> None:
    """Write the page to `path`.

    Previews of blocked images are blurred before they are embedded. A picture that cannot be
    opened any more is shown as an empty tile; its findings are shown all the same.
    """
    prepared = [_prepare(index, tile) for index, tile in enumerate(tiles)]
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


def _prepare(index: int, tile: Tile) -> _Shown:
    info = tile.findings.image
    try:
        with Image.open(tile.path) as file:
            picture = _upright(file)
    except (OSError, ImportError):
        # Ultralytics, once imported, replaces `Image.open` by one that looks for a HEIF decoder
        # when no other fits, and raises `ModuleNotFoundError` when there is none.
        picture = None
    if picture is None:
        width, height = (info.width, info.height) if info else (4, 3)
        return _Shown(
            tile, f"image-{index}", "", "", overlay(tile.findings, max(width, 1), max(height, 1))
        )
    # Boxes are in pixels of the decoded picture, which the findings know best.
    width, height = (info.width, info.height) if info else picture.size
    return _Shown(
        tile,
        f"image-{index}",
        _data_uri(picture, _PREVIEW_PIXELS, blurred=tile.action == "block"),
        _data_uri(picture, _THUMBNAIL_PIXELS, blurred=tile.action == "block"),
        overlay(tile.findings, width, height),
    )


def _upright(file: Image.Image) -> Image.Image:
    picture = ImageOps.exif_transpose(file)
    if "A" in picture.getbands() or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(ground, rgba).convert("RGB")
    return picture.convert("RGB")


def _data_uri(picture: Image.Image, longest: int, blurred: bool) -> str:
    small = picture.copy()
    small.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    if blurred:
        # A thirteenth of the side leaves colours and no shapes.
        small = small.filter(ImageFilter.GaussianBlur(max(small.size) / 13))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
