"""Cut lines of text out of pictures on the pictures' own device, straight and at one height.

On a processor OpenCV does this line by line. On a GPU that would mean copying whole pictures to the
host and the lines back, and the cutting would take longer than the reading. Here all lines of a
forward pass are sampled together, from all pictures that they stand in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

TALL = 1.5
"""A line that is so many times taller than wide is read from bottom to top, as PaddleOCR does."""


@dataclass(frozen=True)
class Place:
    """Where a line stands.

    Attributes:
        image: index of its picture.
        quad: float32, shape (4, 2): its corners, clockwise from the start of the text.
    """

    image: int
    quad: NDArray[np.float32]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the straightened line in pixels of the picture."""
        sides = np.linalg.norm(np.roll(self.quad, -1, axis=0) - self.quad, axis=1)
        return max(1, int(max(sides[1], sides[3]))), max(1, int(max(sides[0], sides[2])))

    def turned(self, corners: int) -> Place:
        """The same place with the text beginning `corners` corners further on."""
        return Place(self.image, np.roll(self.quad, -corners, axis=0))


class LineSource:
    """Pictures on one device that lines can be cut out of."""

    def __init__(self, images: Sequence[torch.Tensor], needed: Sequence[int]) -> None:
        """
        Args:
            images: uint8 RGB, shape (height, width, 3).
            needed: indices of those that have lines; only they are copied into one buffer.
        """
        self._device = images[0].device
        self._shape = np.ones((len(images), 2), np.int64)
        self._start = np.zeros(len(images), np.int64)
        start = 0
        for index in needed:
            self._shape[index] = images[index].shape[:2]
            self._start[index] = start
            start += images[index].shape[0] * images[index].shape[1]
        self._pixels = torch.cat([images[index].reshape(-1, 3) for index in needed])

    def cut(
        self, places: Sequence[Place], widths: Sequence[int], height: int, canvas: int
    ) -> torch.Tensor:
        """Lines at `height` pixels, each as wide as `widths` says and grey from there on.

        Returns:
            float32 RGB from 0 to 255, shape (N, 3, height, canvas). Values between pixels are
            bilinear, and the picture's border goes on beyond it.
        """
        images = [place.image for place in places]
        # One copy to the device: the coefficients, the width, and where the picture is.
        numbers = np.concatenate(
            (
                _homographies(places, widths, height),
                np.array(widths, np.float64)[:, None],
                self._shape[images],
                self._start[images, None],
            ),
            axis=1,
        )
        # float64, since positions in a batch of large pictures do not fit into float32.
        given = torch.from_numpy(numbers).to(self._device)
        h = given[:, :8].float()[:, :, None, None]
        rows = torch.arange(height, device=self._device, dtype=torch.float32)[None, :, None] + 0.5
        columns = torch.arange(canvas, device=self._device, dtype=torch.float32) + 0.5
        depth = h[:, 6] * columns + h[:, 7] * rows + 1.0
        x = (h[:, 0] * columns + h[:, 1] * rows + h[:, 2]) / depth
        y = (h[:, 3] * columns + h[:, 4] * rows + h[:, 5]) / depth
        whole = given[:, 8:].long()[:, :, None, None]
        right, bottom, start = whole[:, 2] - 1, whole[:, 1] - 1, whole[:, 3]
        left_x, top_y = x.floor(), y.floor()
        share_x, share_y = (x - left_x)[..., None], (y - top_y)[..., None]
        x0, y0 = left_x.long(), top_y.long()
        zero = torch.zeros((), dtype=torch.int64, device=self._device)
        lines = torch.zeros((), device=self._device)
        for step_y, weight_y in ((0, 1 - share_y), (1, share_y)):
            inside_y = torch.minimum((y0 + step_y).clamp_min(0), bottom)
            row_start = start + inside_y * whole[:, 2]
            for step_x, weight_x in ((0, 1 - share_x), (1, share_x)):
                inside_x = torch.minimum(torch.maximum(x0 + step_x, zero), right)
                pixels = self._pixels[(row_start + inside_x).flatten()]
                lines = lines + pixels.view(*x.shape, 3).float() * (weight_y * weight_x)
        beyond = columns[None, :] > given[:, 8:9].float()
        lines.masked_fill_(beyond[:, None, :, None], 127.5)
        return lines.permute(0, 3, 1, 2)


def _homographies(
    places: Sequence[Place], widths: Sequence[int], height: int
) -> NDArray[np.float64]:
    """For each line the 8 coefficients that take its pixels' centres to positions in the picture.

    Source: Heckbert, Fundamentals of Texture Mapping and Image Warping (1989), section 2.2.3, for
    the map of the unit square to a quadrilateral. Positions count pixels' centres as whole numbers,
    and a line's corner pixel lies on its corner, as in OpenCV's `warpPerspective` of PaddleOCR.
    """
    quads = np.stack([place.quad for place in places]).astype(np.float64)
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = (quads[:, i].T for i in range(4))
    sum_x, sum_y = x0 - x1 + x2 - x3, y0 - y1 + y2 - y3
    dx1, dx2, dy1, dy2 = x1 - x2, x3 - x2, y1 - y2, y3 - y2
    area = dx1 * dy2 - dx2 * dy1
    area = np.where(np.abs(area) < 1e-9, 1e-9, area)
    g = (sum_x * dy2 - dx2 * sum_y) / area
    k = (dx1 * sum_y - sum_x * dy1) / area
    a, b = x1 - x0 + g * x1, x3 - x0 + k * x3
    d, e = y1 - y0 + g * y1, y3 - y0 + k * y3
    # A straightened line of w pixels is resampled to W: pixel i lies at (i + 0.5) * w / W - 0.5.
    sizes = np.array([place.size for place in places], np.float64)
    unit_x, unit_y = 1.0 / np.array(widths, np.float64), np.full(len(places), 1.0 / height)
    shift_x, shift_y = -0.5 / sizes[:, 1], -0.5 / sizes[:, 0]
    c = x0 + a * shift_x + b * shift_y
    f = y0 + d * shift_x + e * shift_y
    one = 1.0 + g * shift_x + k * shift_y
    found = (a * unit_x, b * unit_y, c, d * unit_x, e * unit_y, f, g * unit_x, k * unit_y)
    coefficients: NDArray[np.float64] = np.stack(found, axis=1) / one[:, None]
    return coefficients
