"""Letterboxing: pictures of any sizes become one square batch, and boxes find their way back.

The aspect ratio is kept and the rest is filled with grey, as Ultralytics does in training; a
picture squashed to a square would show a detector shapes that it has never seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.resizing import resized_alike, same_sized

GREY = 114
"""Ultralytics' filling."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a picture lies in its square.

    Attributes:
        width, height: of the original in pixels, however small it was decoded.
        left, top: of the picture in the square.
        inner_width, inner_height: of the picture in the square.
    """

    width: int
    height: int
    left: int
    top: int
    inner_width: int
    inner_height: int

    @property
    def scale_x(self) -> float:
        """From original pixels to pixels of the square. It differs a little from `scale_y`,
        because the resized picture's sides are whole numbers."""
        return self.inner_width / self.width

    @property
    def scale_y(self) -> float:
        return self.inner_height / self.height

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
    if originals is None:
        originals = [(int(pixels.shape[0]), int(pixels.shape[1])) for pixels in pictures]
    placements = [_placement(original, height, width) for original in originals]
    # A group is one launch on CUDA; on a processor each picture is a group of its own.
    groups = same_sized(pictures) if pictures[0].is_cuda else ([i] for i in range(len(pictures)))
    for positions in groups:
        placement = placements[positions[0]]
        inner = resized_alike(
            [pictures[i] for i in positions], placement.inner_height, placement.inner_width
        )
        rows = slice(placement.top, placement.top + placement.inner_height)
        columns = slice(placement.left, placement.left + placement.inner_width)
        if len(positions) == len(pictures):
            batch[:, :, rows, columns] = inner
            continue
        for position, picture in zip(positions, inner, strict=True):
            batch[position, :, rows, columns] = picture
    return batch, placements


def _placement(original: tuple[int, int], height: int, width: int) -> Placement:
    own_height, own_width = original
    scale = min(height / own_height, width / own_width)
    inner_height = max(1, round(own_height * scale))
    inner_width = max(1, round(own_width * scale))
    return Placement(
        own_width,
        own_height,
        (width - inner_width) // 2,
        (height - inner_height) // 2,
        inner_width,
        inner_height,
    )
