"""Resize a decoded picture the same way on CPU and CUDA.

torch's antialiased resampling is used on both. On one core it takes 1280x720 to 320x180 in 0.7 ms;
OpenCV's INTER_AREA needs 1.1 ms (and 33 ms against 6 ms for a 12-megapixel photo). OpenCV's plain
bilinear is quicker still, but skips pixels: with it NudeNet misses a face at 320 pixels that it
finds in the antialiased picture.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

Interpolation = Literal["bilinear", "bicubic"]


def resized(
    pixels: torch.Tensor, height: int, width: int, interpolation: Interpolation = "bilinear"
) -> torch.Tensor:
    """Resample a picture to `height` x `width`, whatever becomes of its aspect ratio.

    Args:
        pixels: uint8, shape (H, W, 3), on any device.

    Returns:
        uint8, shape (3, height, width), on the same device.
    """
    image = pixels.permute(2, 0, 1).unsqueeze(0)
    if image.shape[-2:] == (height, width):
        return image[0]
    if pixels.is_cuda:  # torch has no antialiased uint8 kernel for CUDA
        smooth = functional.interpolate(
            image.float(), (height, width), mode=interpolation, antialias=True
        )
        return smooth.round_().clamp_(0, 255).to(torch.uint8)[0]
    return functional.interpolate(image, (height, width), mode=interpolation, antialias=True)[0]
