"""Letters for what is written on pictures, in whatever script it was read.

No font has all scripts. DejaVu Sans comes along; what it lacks, Chinese, Japanese and Korean above
all, is taken from a font of the system where there is one. A character that
no font here can show is not drawn as an empty box, which tells nothing: a run of them becomes its
length and script, such as `[4 cjk]`.
"""

from __future__ import annotations

import functools
import logging
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from PIL import ImageDraw, ImageFont

logger = logging.getLogger(__name__)

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_FOLDERS = {
    "darwin": ("/System/Library/Fonts", "/Library/Fonts"),
    "win32": ("C:/Windows/Fonts",),
}
_LINUX_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts")
_WIDE_FONTS = (
    "NotoSansCJK-Regular.ttc",  # Debian's fonts-noto-cjk and others
    "NotoSansCJK-VF.otf.ttc",  # Fedora's google-noto-sans-cjk-vf-fonts
    "DroidSansFallbackFull.ttf",  # Debian's fonts-droid-fallback, which deploy/Dockerfile installs
    "DroidSansFallback.ttf",
    "wqy-zenhei.ttc",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "msyh.ttc",
    "unifont.otf",
)
"""Fonts with many scripts, the best first, as they are called on Linux, macOS and Windows."""
_SURELY_MISSING = "\U0010ffff"
"""No character, so every font shows what it shows for those that it lacks."""


class Lettering:
    """Measures and writes text in the fonts of this machine.

    Args:
        size: of the letters in pixels.
        files: fonts, the first for all that it has; those of this machine if not given.
    """

    def __init__(self, size: float, files: Sequence[Path] | None = None) -> None:
        self._fonts: list[_Font] = []
        for file in font_files() if files is None else files:
            try:
                self._fonts.append(ImageFont.truetype(file, size))
            except OSError as error:  # the next one may do
                logger.warning("the font %s cannot be used: %s", file, error)
        if not self._fonts:
            self._fonts.append(ImageFont.load_default(size))
        self._ascent, self._height = _line_of(self._fonts[0], size)
        self._missing = [_shape(font, _SURELY_MISSING) for font in self._fonts]
        self._font_of: dict[str, _Font | None] = {}

    def readable(self, text: str) -> str:
        """`text` with what cannot be shown in words: how many characters of which script."""
        parts = []
        for known, run in groupby(text, lambda each: self._font(each) is not None):
            characters = "".join(run)
            if known:
                parts.append(characters)
                continue
            for script, members in groupby(characters, _script):
                parts.append(f"[{sum(1 for _ in members)} {script}]")
        return "".join(parts)

    def size(self, text: str) -> tuple[float, float]:
        """Width and height of a line of readable text, in pixels."""
        return sum(font.getlength(run) for font, run in self._runs(text)), self._height

    def write(
        self, draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, ink: tuple[int, ...]
    ) -> None:
        """Write a line of readable text with its upper left corner at `place`."""
        x, y = place
        for font, run in self._runs(text):
            if isinstance(font, ImageFont.FreeTypeFont):
                # Fonts differ in height; what they share is the line that letters stand on.
                draw.text((x, y + self._ascent), run, fill=ink, font=font, anchor="ls")
            else:
                draw.text((x, y), run, fill=ink, font=font)
            x += font.getlength(run)

    def _runs(self, text: str) -> Iterator[tuple[_Font, str]]:
        for font, run in groupby(text, lambda each: self._font(each) or self._fonts[0]):
            yield font, "".join(run)

    def _font(self, character: str) -> _Font | None:
        """The first font that has `character`."""
        if character not in self._font_of:
            self._font_of[character] = self._search(character)
        return self._font_of[character]

    def _search(self, character: str) -> _Font | None:
        if not character.isprintable():
            return None
        if character == " ":
            return self._fonts[0]
        for font, missing in zip(self._fonts, self._missing, strict=True):
            shape = _shape(font, character)
            if shape is not None and shape != missing:
                return font
        return None


@functools.cache
def font_files() -> tuple[Path, ...]:
    """The fonts of this machine: DejaVu Sans, which comes inside matplotlib and so with
    Ultralytics, and the best that there is for other scripts."""
    found = []
    package = find_spec("matplotlib")
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        file = Path(folder, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")
        if file.is_file():
            found.append(file)
    installed = {
        file.name: file
        for folder in _FOLDERS.get(sys.platform, _LINUX_FOLDERS)
        for file in Path(folder).rglob("*.[to]t[fc]")
    }
    wide = next((installed[name] for name in _WIDE_FONTS if name in installed), None)
    return (*found, *([wide] if wide is not None else []))


def _line_of(font: _Font, size: float) -> tuple[float, float]:
    if isinstance(font, ImageFont.FreeTypeFont):
        ascent, descent = font.getmetrics()
        return ascent, ascent + descent
    return size, size


def _shape(font: _Font, character: str) -> bytes | None:
    """What a font draws for a character; `None` if that is nothing."""
    try:
        mask = font.getmask(character)
    except (UnicodeEncodeError, OSError):  # Pillow's smallest font has Latin-1 only
        return None
    return bytes(mask) if mask.getbbox() else None


def _script(character: str) -> str:
    """The first word of its name: cjk, hangul, thai; `unnamed` for what has none."""
    return unicodedata.name(character, "unnamed").split()[0].lower()
