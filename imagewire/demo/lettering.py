"""Rendered pictures with text: signs, receipts and notices, so that reading has something to read.

Each picture is described as data: its lines with their sizes, its colours, and the file format, so
that the set also passes through every decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image, ImageDraw, ImageFont

from operators.findings import Action

Face = Literal["regular", "bold", "mono", "serif"]

_FILES: dict[Face, str] = {
    "regular": "DejaVuSans.ttf",
    "bold": "DejaVuSans-Bold.ttf",
    "mono": "DejaVuSansMono.ttf",
    "serif": "DejaVuSerif.ttf",
}

SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    ".jpg": {"quality": 88},
    ".webp": {"quality": 85, "method": 4},
    # One thread: the encoder's tiling, and with it the bytes, would follow the number of cores.
    ".avif": {"quality": 75, "max_threads": 1},
    ".tiff": {"compression": "tiff_lzw"},
}
"""How pictures of the demonstration are encoded, by suffix; other formats need no options."""


class Fonts:
    """The DejaVu fonts in a folder. Basic layout, so that Raqm's presence changes no pixel."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def face(self, face: Face, size: int) -> ImageFont.FreeTypeFont:
        path = str(self._folder / _FILES[face])
        return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


@dataclass(frozen=True, slots=True)
class Line:
    text: str
    size: int
    face: Face = "regular"


@dataclass(frozen=True, slots=True)
class Sheet:
    """One rendered picture.

    Attributes:
        name: file name; its suffix is the format.
        size: width and height in pixels.
        ground, ink: colours.
        content: lines from top to bottom; an empty text is a gap of its size.
        centred: lines are centred, else aligned at the left margin.
        frame: the width of a border in the colour of the ink.
        tilt: degrees that the sheet is turned on a grey table, anti-clockwise.
        mode: Pillow mode that is saved: `RGB`, `L`, `P` or `RGBA`.
        action: what the default policy should decide.
    """

    name: str
    size: tuple[int, int]
    ground: str
    ink: str
    content: tuple[Line, ...]
    centred: bool = True
    frame: int = 0
    tilt: float = 0.0
    mode: str = "RGB"
    action: Action = "allow"

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(line.text for line in self.content if line.text)

    def write(self, path: Path, fonts: Fonts) -> None:
        picture = self._draw(fonts)
        if self.tilt:
            table = Image.new("RGB", (self.size[0] + 120, self.size[1] + 120), "#8f9498")
            turned = picture.convert("RGBA").rotate(
                self.tilt, expand=True, resample=Image.Resampling.BICUBIC
            )
            corner = (
                (table.width - turned.width) // 2,
                (table.height - turned.height) // 2,
            )
            table.paste(turned, corner, turned)
            picture = table
        if self.mode != picture.mode:
            picture = picture.convert(self.mode)
        picture.save(path, **SAVE_OPTIONS.get(path.suffix, {}))

    def _draw(self, fonts: Fonts) -> Image.Image:
        picture = Image.new("RGB", self.size, self.ground)
        draw = ImageDraw.Draw(picture)
        if self.frame:
            box = (10, 10, self.size[0] - 11, self.size[1] - 11)
            draw.rounded_rectangle(box, 16, outline=self.ink, width=self.frame)
        spacing = 1.45
        height = sum(line.size * spacing for line in self.content)
        top = (self.size[1] - height) / 2
        for line in self.content:
            middle = top + line.size * spacing / 2
            font = fonts.face(line.face, line.size)
            anchor, left = ("mm", self.size[0] / 2) if self.centred else ("lm", 40.0)
            draw.text((left, middle), line.text, self.ink, font, anchor)
            top += line.size * spacing
        return picture


SHEETS: tuple[Sheet, ...] = (
    Sheet(
        "shop-sign.png",
        (640, 300),
        "#1f4d3a",
        "#f4ead2",
        (
            Line("Harbour Books", 62, "serif"),
            Line("NEW AND SECOND HAND", 26),
            Line("est. 1964", 22),
        ),
        frame=4,
    ),
    Sheet(
        "receipt.png",
        (420, 620),
        "#fbfaf5",
        "#222222",
        (
            Line("CORNER GROCERY", 30, "mono"),
            Line("", 14),
            Line("Bread          3.20", 24, "mono"),
            Line("Apples 1.2 kg  2.88", 24, "mono"),
            Line("Olive oil     11.50", 24, "mono"),
            Line("Coffee         7.90", 24, "mono"),
            Line("", 14),
            Line("TOTAL  EUR    25.48", 26, "mono"),
            Line("", 14),
            Line("Thank you, come again", 22, "mono"),
        ),
        centred=False,
        mode="L",
    ),
    Sheet(
        "parking-notice.jpg",
        (560, 420),
        "#ffffff",
        "#12356b",
        (
            Line("PARKING", 64, "bold"),
            Line("residents only", 34),
            Line("Mon - Fri  8:00 - 18:00", 32),
            Line("Vehicles will be towed", 30),
        ),
        frame=8,
        tilt=4.0,
    ),
    Sheet(
        "departures.webp",
        (760, 360),
        "#101418",
        "#f3c54b",
        (
            Line("DEPARTURES", 40, "bold"),
            Line("09:14  Lisbon      Gate B12", 32, "mono"),
            Line("09:40  Oslo        Gate A03", 32, "mono"),
            Line("10:05  Nairobi     Gate C21", 32, "mono"),
            Line("10:30  Delayed", 32, "mono"),
        ),
        centred=False,
    ),
    Sheet(
        "wet-floor.gif",
        (420, 420),
        "#f7d417",
        "#111111",
        (Line("CAUTION", 66, "bold"), Line("WET FLOOR", 54, "bold"), Line("mind your step", 32)),
        frame=10,
        mode="P",
    ),
    Sheet(
        "street-sign.bmp",
        (640, 180),
        "#12408c",
        "#ffffff",
        (Line("Station Road", 70, "bold"),),
        frame=6,
    ),
    Sheet(
        "menu.avif",
        (520, 560),
        "#2b2f2d",
        "#f1efe6",
        (
            Line("TODAY", 50, "serif"),
            Line("Pumpkin soup  6.50", 32, "serif"),
            Line("Mushroom risotto  13.00", 32, "serif"),
            Line("Grilled trout  16.80", 32, "serif"),
            Line("Apple crumble  5.40", 32, "serif"),
        ),
    ),
    Sheet(
        "lecture.tiff",
        (620, 420),
        "#f2efe8",
        "#5a1f2b",
        (
            Line("Public lecture", 50, "serif"),
            Line("How galaxies grow", 40, "serif"),
            Line("Thursday 14 May, 19:30", 30),
            Line("Hall 2, admission free", 30),
        ),
        tilt=-3.0,
    ),
    Sheet(
        "ticket.png",
        (640, 260),
        "#e9f1fa",
        "#16324f",
        (
            Line("CITY TRAM", 44, "bold"),
            Line("Day ticket  Zone 1-3", 34),
            Line("Valid 21.06.  No 0047 1182", 28, "mono"),
        ),
        frame=3,
        mode="RGBA",
    ),
    Sheet(
        "shipping-label.webp",
        (560, 400),
        "#ffffff",
        "#000000",
        (
            Line("FRAGILE", 60, "bold"),
            Line("This side up", 36),
            Line("Parcel 3 of 7", 32),
            Line("2.4 kg", 32),
        ),
        frame=5,
    ),
    Sheet(
        "spam-poster.jpg",
        (640, 460),
        "#c2185b",
        "#ffffff",
        (
            Line("FREE MONEY", 74, "bold"),
            Line("in just one week!", 38),
            Line("Buy followers today", 40),
            Line("limited offer", 30),
        ),
        action="review",
    ),
    Sheet(
        "private-offer.png",
        (600, 360),
        "#fff6d6",
        "#3b2a00",
        (
            Line("Tickets, sold out show", 36),
            Line("Text me now", 54, "bold"),
            Line("555 014 7730", 48, "mono"),
        ),
        action="review",
    ),
)
