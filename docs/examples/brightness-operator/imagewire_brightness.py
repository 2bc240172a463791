"""An operator of one's own: how bright and how sharp each picture is.

It shows the whole contract: options are checked when the operator is made, a batch is analysed in
one go, results go to `findings.extra` under the operator's name, and a frame that cannot be
analysed fails alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch.nn import functional

from models.catalog import Catalog
from models.device import Device
from operators.frame import Frame
from operators.operator import Operator, OperatorError

# ITU-R BT.709 luma coefficients.
LUMA = (0.2126, 0.7152, 0.0722)
LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))


class BrightnessOperator(Operator):
    """Writes `{"luminance": 0..1, "sharpness": 0..}` to `findings.extra["brightness"]`.

    Sharpness is the variance of the Laplacian of the luminance, seen at `side` pixels square so
    that it does not depend on the picture's size.

    Options:
        side: the edge in pixels of the square that pictures are scaled to; 256 by default.
    """

    name: ClassVar[str] = "brightness"

    def __init__(self, options: Mapping[str, Any], device: Device, catalog: Catalog) -> None:
        super().__init__(options, device, catalog)
        unknown = options.keys() - {"side"}
        if unknown:
            raise OperatorError(
                f"operators.brightness has no option {sorted(unknown)}; it has: side"
            )
        self._side = options.get("side", 256)
        if not isinstance(self._side, int) or self._side < 3:
            raise OperatorError(
                f"operators.brightness.side is {self._side!r}; it must be 3 or more"
            )

    def setup(self) -> None:
        target = self.device.torch_device
        self._luma = torch.tensor(LUMA, device=target).view(1, 3, 1, 1)
        self._laplacian = torch.tensor(LAPLACIAN, device=target).view(1, 1, 3, 3)

    @torch.inference_mode()
    def process(self, frames: Sequence[Frame]) -> None:
        # Pictures differ in size: bring each to one shape, then measure all of them at once.
        batch = torch.cat([self._square(frame) for frame in frames])
        luminance = (batch * self._luma).sum(1, keepdim=True)
        edges = functional.conv2d(luminance, self._laplacian)
        means = luminance.mean((1, 2, 3)).tolist()
        sharpness = edges.var((1, 2, 3)).tolist()
        for frame, mean, sharp in zip(frames, means, sharpness, strict=True):
            frame.findings.extra[self.name] = {"luminance": mean, "sharpness": sharp}

    def _square(self, frame: Frame) -> torch.Tensor:
        assert frame.pixels is not None, "the chain passes decoded frames only"
        pixels = frame.pixels.to(self.device.torch_device).permute(2, 0, 1)[None].float() / 255
        return functional.interpolate(
            pixels, (self._side, self._side), mode="bilinear", antialias=True
        )
