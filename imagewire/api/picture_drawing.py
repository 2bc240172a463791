"""Draws what was found over a picture that may be shown: boxes, lines of text, scores.

It starts from a finished thumbnail, in which what is private is hidden already, so nothing that is
drawn can bring a hidden pixel back. Labels stand on plates, because no single colour can be read on
every photo, and keep out of each other's way as far as there is room.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from imagewire.api.plate_lettering import Lettering
from operators.findings import Box, Findings

_QUALITY = 80
_MOST_DRAWN = 300
"""Of each kind; more would hide the picture. A detector gives no more objects either."""
_LONGEST_LABEL = 60
_FAR = 4096.0
"""Pixels; no picture that is shown is so large."""

Colour = tuple[int, int, int]

# Light and dark enough to carry black or white letters with a contrast of 4.5 to 1 (WCAG AA).
_TONES: dict[str, tuple[Colour, Colour]] = {
    "face": ((88, 166, 255), (0, 0, 0)),
    "exposed": ((255, 107, 107), (0, 0, 0)),
    "covered": ((245, 184, 61), (0, 0, 0)),
    "object": ((64, 201, 162), (0, 0, 0)),
    "text": ((230, 230, 120), (0, 0, 0)),
    "score": ((24, 28, 34), (255, 255, 255)),
}

Rectangle = tuple[float, float, float, float]
"""left, top, right, bottom."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is to be drawn."""

    boxes: bool = True
    text: bool = True
    scores: bool = True


def annotated(picture: bytes, findings: Findings, drawn: Drawn) -> bytes:
    """A WebP of `picture` with what was found drawn over it.

    Args:
        picture: a thumbnail that Imagewire made; WebP.
        findings: with coordinates in pixels of the original.
    """
    with Image.open(io.BytesIO(picture)) as opened:
        canvas = opened.convert("RGB")
    width, height = canvas.size
    original = findings.image
    across = width / original.width if original and original.width else 1.0
    down = height / original.height if original and original.height else 1.0
    _Sheet(canvas).draw(findings, drawn, across, down)
    buffer = io.BytesIO()
    canvas.save(buffer, "WEBP", quality=_QUALITY, method=2)
    return buffer.getvalue()


class _Sheet:
    """One picture that is being drawn on."""

    def __init__(self, canvas: Image.Image) -> None:
        self._canvas = canvas
        self._draw = ImageDraw.Draw(canvas)
        longer = max(canvas.size)
        self._line = max(1, round(longer / 320))
        self._lettering = Lettering(min(max(longer / 45, 10.0), 22.0))
        self._taken: list[Rectangle] = []

    def draw(self, findings: Findings, drawn: Drawn, across: float, down: float) -> None:
        if drawn.text:
            for line in findings.texts[:_MOST_DRAWN]:
                corners = [_point(x * across, y * down) for x, y in line.quad]
                self._draw.polygon(corners, outline=_TONES["text"][0], width=self._line)
                self._plate(line.text, "text", _around(corners), below=True)
        if drawn.boxes:
            found = sorted(findings.objects, key=lambda each: -each.score)[:_MOST_DRAWN]
            for each in reversed(found):  # the surest on top
                self._outline(each.box, tone(each.label), across, down)
            for each in found:
                label = f"{_readable(each.label)} {each.score:.2f}"
                self._plate(label, tone(each.label), _scaled(each.box, across, down))
            for face in findings.faces[:_MOST_DRAWN]:
                self._outline(face.box, "face", across, down)
                self._plate(f"face {face.score:.2f}", "face", _scaled(face.box, across, down))
        if drawn.scores:
            self._scores(findings.scores)

    def _outline(self, box: Box, kind: str, across: float, down: float) -> None:
        left, top, right, bottom = _scaled(box, across, down)
        if left <= right and top <= bottom:
            colour = _TONES[kind][0]
            self._draw.rectangle((left, top, right, bottom), outline=colour, width=self._line)

    def _scores(self, scores: dict[str, float]) -> None:
        """In the lower left corner, the highest first."""
        best = sorted(scores.items(), key=lambda item: -item[1])[:8]
        bottom = float(self._canvas.height)
        for name, score in best:
            text = self._fitting(f"{name} {score:.2f}")
            width, height = self._size(text)
            self._write(text, "score", (0.0, bottom - height, width, bottom))
            bottom -= height

    def _plate(self, label: str, kind: str, place: Rectangle, below: bool = False) -> None:
        text = self._fitting(label)
        if not text:
            return
        width, height = self._size(text)
        spot = next(
            (spot for spot in self._spots(place, width, height, below) if self._is_free(spot)),
            None,
        )
        if spot is not None:  # else it would hide another; the outline tells that something is here
            self._taken.append(spot)
            self._write(text, kind, spot)

    def _spots(
        self, place: Rectangle, width: float, height: float, below: bool
    ) -> Iterator[Rectangle]:
        """Where a plate may stand, the best first."""
        left, top, _, bottom = place
        x = min(max(left, 0.0), max(self._canvas.width - width, 0.0))
        rows = [bottom, top - height] if below else [top - height, top, bottom]
        rows += [top + step * height for step in range(1, 6)]
        for y in rows:
            if 0 <= y <= self._canvas.height - height:
                yield (x, y, x + width, y + height)

    def _is_free(self, spot: Rectangle) -> bool:
        left, top, right, bottom = spot
        return not any(
            left < other[2] and other[0] < right and top < other[3] and other[1] < bottom
            for other in self._taken
        )

    def _write(self, text: str, kind: str, spot: Rectangle) -> None:
        colour, ink = _TONES[kind]
        self._draw.rectangle(spot, fill=colour)
        self._lettering.write(self._draw, (spot[0] + self._line + 1, spot[1]), text, ink)

    def _size(self, text: str) -> tuple[float, float]:
        width, height = self._lettering.size(text)
        return width + 2 * (self._line + 1), height + self._line

    def _fitting(self, label: str) -> str:
        """As much of the label as has room."""
        text = self._lettering.readable(label[:_LONGEST_LABEL])
        if len(label) > _LONGEST_LABEL:
            text += "…"
        while text and self._size(text)[0] > self._canvas.width:
            text = text[:-2].rstrip("…") + "…" if len(text) > 2 else ""
        return text


def tone(label: str) -> str:
    """The colour group of a label: `face`, `exposed`, `covered` or `object`."""
    words = label.upper().split("_")
    for word in ("FACE", "EXPOSED", "COVERED"):
        if word in words:
            return word.lower()
    return "object"


def _readable(label: str) -> str:
    return label.replace("_", " ").lower() if label.isupper() else label


def _scaled(box: Box, across: float, down: float) -> Rectangle:
    x1, y1, x2, y2 = box
    return (*_point(x1 * across, y1 * down), *_point(x2 * across, y2 * down))


def _point(x: float, y: float) -> tuple[float, float]:
    """A place not far outside of the picture: whatever a model or a row says, it can be drawn."""
    return min(max(x, -_FAR), _FAR), min(max(y, -_FAR), _FAR)


def _around(corners: Sequence[tuple[float, float]]) -> Rectangle:
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    return (min(xs), min(ys), max(xs), max(ys))
