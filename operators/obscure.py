"""Make places in a picture unrecognisable, for good.

What is left of a place is the mean colour of a few cells of it, 4 along its longer side. That is
what makes it irreversible: a mosaic of 8 or 16 cells, and a Gaussian blur of any usual strength,
keep enough for a network to tell people apart (McPherson, Shokri, Shmatikov, "Defeating image
obfuscation with deep learning", 2016), and a blur with a known kernel can partly be computed back.
Sixteen mean colours are not enough to, in whichever way they are painted, so `pixelate` and `blur`
reveal the same; `solid` leaves a single one. It is done at the size at which the picture is shown,
from the pixels of that size alone, and the encoder sees nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from operators.findings import Box
from operators.privacy_options import Method

Pixels = NDArray[np.uint8]

CELLS = 4
"""Along the longer side of a place."""
LEAST_CELL = 8
"""Pixels across a cell at least. In a face of 20 pixels 4 cells are almost the face itself, and a
face detector takes them for one."""


def obscured(
    pixels: Pixels, places: Iterable[Box], method: Method = "pixelate", margin: float = 0.0
) -> Pixels:
    """A copy of the picture in which `places` cannot be recognised; all else is untouched.

    Args:
        pixels: uint8, shape (height, width, 3).
        places: in pixels of this picture. What lies outside of it is cut off.
        margin: by how much each place is widened on every side, as a share of its own width and
            height.
    """
    height, width = pixels.shape[:2]
    picture = pixels.copy()
    for place in places:
        rectangle = _covered(place, margin, width, height)
        if rectangle is not None:
            left, top, right, bottom = rectangle
            # What places share is worked on twice; the second time there is only less left of it.
            picture[top:bottom, left:right] = _cells(picture[top:bottom, left:right], method)
    return picture


def scaled(places: Iterable[Box], across: float, down: float) -> list[Box]:
    """Places in pixels of a picture whose width and height were multiplied by these factors."""
    return [(x1 * across, y1 * down, x2 * across, y2 * down) for x1, y1, x2, y2 in places]


def _covered(
    place: Sequence[float], margin: float, width: int, height: int
) -> tuple[int, int, int, int] | None:
    """Whole pixels that cover a place and its margin; `None` if the picture has none of them."""
    if not all(math.isfinite(value) for value in place):
        return None
    x1, y1, x2, y2 = place
    wider, higher = (x2 - x1) * margin, (y2 - y1) * margin
    left, top = max(math.floor(x1 - wider), 0), max(math.floor(y1 - higher), 0)
    right, bottom = min(math.ceil(x2 + wider), width), min(math.ceil(y2 + higher), height)
    return (left, top, right, bottom) if left < right and top < bottom else None


def _cells(place: Pixels, method: Method) -> Pixels:
    height, width = place.shape[:2]
    cell = max(max(height, width) / (1 if method == "solid" else CELLS), LEAST_CELL)
    rows, columns = (max(1, round(side / cell)) for side in (height, width))
    # INTER_AREA gives each cell the mean of exactly the pixels that it covers.
    means = cv2.resize(place, (columns, rows), interpolation=cv2.INTER_AREA)
    smooth = cv2.INTER_LINEAR if method == "blur" else cv2.INTER_NEAREST
    painted = cv2.resize(means, (width, height), interpolation=smooth)
    return np.asarray(painted, np.uint8).reshape(height, width, 3)
