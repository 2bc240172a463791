"""Letterboxing: pictures of any sizes become one square batch, and boxes find their way back.

The aspect ratio is kept and the rest is filled with grey, as Ultralytics does in training; a
picture squashed to a square would show a detector shapes that it has never seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.resizing import resized

GREY = 114
"""Ultralytics' filling."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a picture lies in its square.

    Attributes:
        width, height: of the original in pixels, however small it was decoded.
        left, top: of the picture in the square.
        scale_x, scale_y: from original pixels to pixels of the square. They differ a little,
            because the resized picture's sides are whole numbers.
    """

    width: int
    height: int
    left: int
    top: int
    scale_x: float
    scale_y: float

    def to_original(self, corners: torch.Tensor) -> torch.Tensor:
        """Boxes (N, 4) in pixels of the square, as pixels of the original, clipped to it."""
        offset = corners.new_tensor((self.left, self.top, self.left, self.top))
        scale = corners.new_tensor((self.scale_x, self.scale_y, self.scale_x, self.scale_y))
        limit = corners.new_tensor((self.width, self.height, self.width, self.height))
        return ((corners - offset) / scale).clamp_min(0).minimum(limit)


def letterbox(
    pictures: Sequence[torch.Tensor],
    size: tuple[int, int],
    originals: Sequence[tuple[int, int]] | None = None,
) -> tuple[torch.Tensor, list[Placement]]:
    """Place each picture in the middle of its own canvas, as large as it fits.

    Args:
        pictures: uint8 RGB, shape (H, W, 3), of any sizes, all on one device.
        size: (height, width) of the canvas.
        originals: (height, width) of each picture before it was decoded at a reduced size; their
            own when left out. A picture lies where its original would.

    Returns:
        The batch, uint8 of shape (N, 3, height, width), on the pictures' device, and where each
        picture lies in it.
    """
    height, width = size
    batch = pictures[0].new_full((len(pictures), 3, height, width), GREY)
    placements = []
    if originals is None:
        originals = [(int(pixels.shape[0]), int(pixels.shape[1])) for pixels in pictures]
    for canvas, pixels, original in zip(batch, pictures, originals, strict=True):
        own_height, own_width = original
        scale = min(height / own_height, width / own_width)
        inner_height = max(1, round(own_height * scale))
        inner_width = max(1, round(own_width * scale))
        top, left = (height - inner_height) // 2, (width - inner_width) // 2
        canvas[:, top : top + inner_height, left : left + inner_width] = resized(
            pixels, inner_height, inner_width
        )
        placements.append(
            Placement(
                own_width, own_height, left, top, inner_width / own_width, inner_height / own_height
            )
        )
    return batch, placements
