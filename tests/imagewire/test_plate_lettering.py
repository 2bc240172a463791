"""What is promised of what is written on pictures: any script, and never an empty box."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw

from imagewire.api.plate_lettering import Lettering, font_files

TEXT = "東京 Tokyo"


@pytest.fixture
def han(tmp_path: Path) -> Path:
    """A font that has 東 and 京 only: two bars, one full and one half as high."""
    names = {0x6771: "tou", 0x4EAC: "kyou"}
    glyphs = {}
    for name, height in ((".notdef", 0), ("tou", 900), ("kyou", 450)):
        pen = TTGlyphPen(None)
        if height:
            corners = [(100, 0), (100, height), (900, height), (900, 0)]
            pen.moveTo(corners[0])
            for corner in corners[1:]:
                pen.lineTo(corner)
            pen.closePath()
        glyphs[name] = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap(names)
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 100)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Bars", "styleName": "Regular"})
    builder.setupPost()
    file = tmp_path / "bars.ttf"
    builder.save(file)
    return file


def test_what_no_font_has_is_told_as_number_and_script() -> None:
    letters = Lettering(14, font_files()[:1])
    assert letters.readable(TEXT) == "[2 cjk] Tokyo"
    assert letters.readable("한국어ไทย\x07") == "[3 hangul][3 thai][1 unnamed]"
    assert letters.readable("Álcalá, Москва, Αθήνα, مرحبا") == "Álcalá, Москва, Αθήνα, مرحبا"


def test_what_another_font_has_is_written_in_it(han: Path) -> None:
    letters = Lettering(20, (*font_files()[:1], han))
    assert letters.readable(TEXT) == TEXT
    width, height = letters.size("東京")
    assert width == 40 and 20 <= height <= 30
    canvas = Image.new("L", (120, 40))
    letters.write(ImageDraw.Draw(canvas), (0, 0), TEXT, (255,))
    columns = np.asarray(canvas)[:, :40].astype(float).sum(axis=0) / 255
    assert columns[2:18].mean() == pytest.approx(18, abs=1)
    assert columns[22:38].mean() == pytest.approx(9, abs=1)
    assert np.asarray(canvas)[:, 45:].any()  # Tokyo, behind them


def test_a_font_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    letters = Lettering(14, (broken, *font_files()[:1]))
    assert letters.readable(TEXT) == "[2 cjk] Tokyo"
    alone = Lettering(14, (broken,))
    assert alone.readable("ab") == "ab" and alone.size("ab")[0] > 0
