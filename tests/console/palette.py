"""Screenshots in 256 colours, which makes a file a third as large.

The page's own colours are kept exactly: badges and lines of charts are small, so a palette that is
made of the whole screenshot would give theirs away to the photos.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

_OWN = 112


def with_palette(photo: bytes, plain: bytes) -> Image.Image:
    """`photo` with a palette.

    Args:
        photo: a screenshot; PNG.
        plain: the same page without its pictures; PNG.
    """
    shown = Image.open(io.BytesIO(photo)).convert("RGB")
    bare = Image.open(io.BytesIO(plain)).convert("RGB")
    colours, counts = np.unique(_packed(np.asarray(bare)), return_counts=True)
    own = [int(colour) for colour in colours[np.argsort(-counts)[:_OWN]]]
    rest = 256 - len(own)
    of_photos = (shown.quantize(rest).getpalette() or [])[: 3 * rest]
    palette = Image.new("P", (1, 1))
    parts = [part for colour in own for part in (colour >> 16, colour >> 8 & 255, colour & 255)]
    palette.putpalette(parts + of_photos)
    found = shown.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    # Pillow looks colours up coarsely, and spreads what it is wrong by over its neighbours.
    numbers = np.asarray(found).copy()
    packed = _packed(np.asarray(shown))
    for number, colour in enumerate(own):
        numbers[packed == colour] = number
    exact = Image.fromarray(numbers, "P")
    exact.putpalette(found.getpalette() or [])
    return exact


def _packed(colours: np.ndarray) -> np.ndarray:
    """Each colour as one number."""
    wide = colours.astype(np.uint32)
    packed: np.ndarray = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return packed
