"""Boxes, text outlines and labels over a picture, laid out so that labels can be read.

Everything is in the picture's own pixels; sizes are chosen so that lettering looks the same on a
tile whatever the picture's resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from imagewire.demo.outcome import humanised
from operators.findings import Detection, Findings, TextLine

TILE_WIDTH = 360.0
TILE_HEIGHT = 270.0
"""The size in CSS pixels at which a tile is usually seen; lettering is scaled for it."""

_LETTER_HEIGHT = 11.5
# The mean advance of sans-serif digits and lower-case letters, in ems, rounded up.
_LETTER_WIDTH = 0.56


@dataclass(frozen=True, slots=True)
class Rectangle:
    x: float
    y: float
    width: float
    height: float

    def overlaps(self, other: Rectangle) -> bool:
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


@dataclass(frozen=True, slots=True)
class Mark:
    """A box around an object, and its label on a plate of its own."""

    tone: str
    box: Rectangle
    label: str
    plate: Rectangle


@dataclass(frozen=True, slots=True)
class Outline:
    """The outline of a text line: SVG polygon points, and the text for those who point at it."""

    points: str
    title: str


@dataclass(frozen=True, slots=True)
class Overlay:
    """What is drawn over one picture. `unit` is a CSS pixel of the tile in picture pixels."""

    width: int
    height: int
    unit: float
    marks: tuple[Mark, ...]
    outlines: tuple[Outline, ...]

    @property
    def letter_size(self) -> float:
        return _LETTER_HEIGHT * self.unit


def overlay(findings: Findings, width: int, height: int) -> Overlay:
    """Lay out what was found in a picture of `width` × `height` pixels."""
    unit = max(width / TILE_WIDTH, height / TILE_HEIGHT)
    placed: list[Rectangle] = []
    marks = []
    # The surest detections get the first choice of where their labels stand.
    for detection in sorted(findings.objects, key=lambda found: -found.score):
        label = f"{humanised(detection.label)} {detection.score:.2f}"
        plate = _place(label, detection, placed, unit, width, height)
        placed.append(plate)
        x1, y1, x2, y2 = detection.box
        marks.append(Mark(tone(detection.label), Rectangle(x1, y1, x2 - x1, y2 - y1), label, plate))
    outlines = tuple(_outline(line) for line in findings.texts)
    return Overlay(width, height, unit, tuple(marks), outlines)


def tone(label: str) -> str:
    """The colour group of a label: `face`, `exposed`, `covered` or `object`."""
    for word in ("FACE", "EXPOSED", "COVERED"):
        if word in label.split("_"):
            return word.lower()
    return "object"


def _place(
    label: str,
    detection: Detection,
    placed: Sequence[Rectangle],
    unit: float,
    width: int,
    height: int,
) -> Rectangle:
    """Above the box if there is room, else inside its top, else under it, else further down."""
    size = _LETTER_HEIGHT * unit
    plate_width = (len(label) * _LETTER_WIDTH * size) + 8 * unit
    plate_height = size * 1.45
    x1, y1, _, y2 = detection.box
    x = min(max(x1, 0.0), max(width - plate_width, 0.0))
    lowest = max(height - plate_height, 0.0)
    candidates = [y1 - plate_height, y1, y2, y2 - plate_height]
    candidates += [y1 + step * plate_height for step in range(1, 12)]
    for y in candidates:
        plate = Rectangle(x, min(max(y, 0.0), lowest), plate_width, plate_height)
        if y >= 0 and not any(plate.overlaps(other) for other in placed):
            return plate
    return Rectangle(x, min(max(y1, 0.0), lowest), plate_width, plate_height)


def _outline(line: TextLine) -> Outline:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in line.quad)
    return Outline(points, f"{line.text} ({line.score:.2f})")
