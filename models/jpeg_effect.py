"""What JPEG compression does to pictures, computed on the device that they are on.

Some networks were trained on pictures that had been through JPEG (see `ImageInput.jpeg_quality`).
On a GPU, sending every picture to an encoder on the processor and back would take longer than the
network. Here the lossy steps are done in floating point for a whole batch at once: colour
conversion, halved chroma, the discrete cosine transform, rounding to the quantisation tables, and
back. At quality 75 pixels differ from libjpeg's by 0.5 on average, since it rounds in more places;
what JPEG itself changes is several times as much.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own documentation calls it F

# ITU-T T.81, annex K: the tables that encoders scale by their quality.
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
)
# ITU-T T.871: RGB to YCbCr and back, without the offset of 128.
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def through_jpeg(images: torch.Tensor, quality: int) -> torch.Tensor:
    """`images` as they come out of a baseline JPEG with 4:2:0 chroma.

    Args:
        images: uint8 RGB, shape (N, 3, height, width), on any device.
        quality: 1 to 100, as libjpeg counts it.
    """
    height, width = images.shape[2:]
    constants = _constants(quality, images.device)
    # As encoders do, fill up the last blocks by repeating the border.
    padding = (0, -width % 16, 0, -height % 16)
    values = F.pad(images.float(), padding, mode="replicate") if any(padding) else images.float()
    ycc = torch.einsum("oc,nchw->nohw", constants.to_ycc, values).round_()
    ycc[:, :1] -= 128.0
    luma = _quantised(ycc[:, :1], constants.cosines, constants.luma)
    halved = F.avg_pool2d(ycc[:, 1:], 2).round_()
    chroma = _quantised(halved, constants.cosines, constants.chroma)
    # libjpeg's "fancy" upsampling weighs the nearer sample 3/4 and the further 1/4: bilinear.
    chroma = F.interpolate(chroma, scale_factor=2.0, mode="bilinear", align_corners=False).round_()
    luma += 128.0
    rgb = torch.einsum("oc,nchw->nohw", constants.to_rgb, torch.cat((luma, chroma), 1))
    return rgb[:, :, :height, :width].round_().clamp_(0, 255).to(torch.uint8)


def _quantised(plane: torch.Tensor, cosines: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Values around 0 whose 8 x 8 blocks have lost what the quantisation table takes away."""
    count, channels, height, width = plane.shape
    blocks = plane.reshape(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    coefficients = (cosines @ blocks @ cosines.T).div_(table).round_().mul_(table)
    back = (cosines.T @ coefficients @ cosines).round_().clamp_(-128, 127)
    return back.transpose(3, 4).reshape(plane.shape)


class _Constants:
    def __init__(self, quality: int, device: torch.device) -> None:
        scale = 5000 // quality if quality < 50 else 200 - 2 * quality

        def table(base: tuple[tuple[int, ...], ...]) -> torch.Tensor:
            scaled = [[min(255, max(1, (v * scale + 50) // 100)) for v in row] for row in base]
            return torch.tensor(scaled, dtype=torch.float32, device=device)

        self.luma, self.chroma = table(_LUMA), table(_CHROMA)
        self.to_ycc = torch.tensor(_TO_YCC, device=device)
        self.to_rgb = torch.tensor(_TO_RGB, device=device)
        self.cosines = torch.tensor(
            [
                [
                    math.sqrt((1 if k == 0 else 2) / 8) * math.cos((2 * n + 1) * k * math.pi / 16)
                    for n in range(8)
                ]
                for k in range(8)
            ],
            device=device,
        )


@lru_cache(maxsize=16)
def _constants(quality: int, device: torch.device) -> _Constants:
    with torch.inference_mode(False):
        return _Constants(quality, device)
