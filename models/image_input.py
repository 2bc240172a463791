"""What an image network wants to be fed: size, framing, channel order, and the scale of values.

These are facts about weights, so they stand in the catalogue entry's `options` rather than in code;
encoders and classifiers read them the same way.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from typing import Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.catalog import ModelCard
from models.device import Device
from models.errors import ModelError
from models.jpeg_effect import through_jpeg
from models.resizing import Interpolation, resized_alike
from models.validation import explain

Channels = tuple[float, float, float]
Options = TypeVar("Options", bound=BaseModel)

IMAGENET_SIZE = 224
"""Used when neither the catalogue nor the network says what it was trained at."""


def card_options(card: ModelCard, schema: type[Options]) -> Options:
    """The catalogue entry's `options`, checked against what its loader understands.

    Raises:
        ModelError: an option is unknown (the nearest is named) or has a wrong value.
    """
    try:
        return schema.model_validate(card.options)
    except ValidationError as error:
        raise ModelError(
            f"model '{card.full_name}': in its options: {'; '.join(explain(error, schema))}"
        ) from error


class ImageInput(BaseModel):
    """How a picture becomes a network's input; the part of `options` that all loaders share.

    Attributes:
        fit: `stretch` ignores the aspect ratio and shows everything; `crop` keeps the ratio and
            loses the longer side's ends.
        crop_fraction: the picture is resized to the input size divided by this, and the middle is
            cut out. 0.875 is the habit of ImageNet.
        interpolation: of the antialiased resize.
        jpeg_quality: the resized picture is encoded as JPEG of this quality and decoded again, for
            networks that were trained on such pictures. open_nsfw's scores move by up to 0.12
            without it.
        channels: order in which the network takes red, green and blue.
        layout: order of the batch's axes.
        mean, std: each channel becomes `(value / scale - mean) / std`, values counting 0 to 255.
            They follow the order of `channels`.
        scale: 255 for means and deviations that count 0 to 1, else 1.
        precision: `auto` computes in the device's dtype; `fp32` for networks that lose too much.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fit: Literal["stretch", "crop"] = "stretch"
    crop_fraction: float = Field(default=1.0, gt=0.0, le=1.0)
    interpolation: Interpolation = "bilinear"
    jpeg_quality: int | None = Field(default=None, ge=1, le=100)
    channels: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["nchw", "nhwc"] = "nchw"
    mean: Channels = (0.485, 0.456, 0.406)
    std: Channels = (0.229, 0.224, 0.225)
    scale: float = Field(default=255.0, gt=0.0)
    precision: Literal["auto", "fp32"] = "auto"

    def resized_to(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of what the network's input of `size` is the middle of."""
        return round(size[0] / self.crop_fraction), round(size[1] / self.crop_fraction)

    def frame(self, pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Bring one picture to the network's size.

        Args:
            pixels: uint8 RGB, shape (H, W, 3).
            size: (height, width) of the network's input.

        Returns:
            uint8 RGB, shape (3, height, width), on the same device.
        """
        return self.batch([pixels], size)[0]

    def batch(self, pictures: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """Pictures of any sizes as one uint8 RGB batch of shape (N, 3, height, width)."""
        height, width = size
        full = self.resized_to(size)
        if self.fit == "crop":
            pictures = [_middle(pixels, full[0] / full[1]) for pixels in pictures]
        images = resized_alike(pictures, *full, self.interpolation)
        if self.jpeg_quality is not None:
            images = _through_jpeg(images, self.jpeg_quality)
        top, left = (full[0] - height) // 2, (full[1] - width) // 2
        return images[:, :, top : top + height, left : left + width]

    def normalised(self, images: torch.Tensor, device: Device) -> torch.Tensor:
        """The values that the network takes, in the dtype that it computes in.

        Args:
            images: uint8 RGB, shape (N, 3, height, width), on any device.

        Returns:
            (N, 3, height, width) in channels-last memory format, or (N, height, width, 3).
        """
        values = images.to(device.torch_device, torch.float32)
        if self.channels == "bgr":
            values = values.flip(1)
        mean, deviation = self._moments(values.device)
        values = ((values - mean) / deviation).to(self.dtype(device))
        if self.layout == "nhwc":
            return values.permute(0, 2, 3, 1).contiguous()
        return values.contiguous(memory_format=torch.channels_last)

    def _moments(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation of values from 0 to 255, of shape (1, 3, 1, 1)."""
        return _moments(self.mean, self.std, self.scale, device)

    def dtype(self, device: Device) -> torch.dtype:
        return torch.float32 if self.precision == "fp32" else device.dtype


@cache
def _moments(
    mean: Channels, deviation: Channels, scale: float, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    # On the device for good: a copy from the host cannot be part of a CUDA graph, and a recorded
    # one goes on reading where these were.
    with torch.inference_mode(False):
        pair = [torch.tensor(v, device=device).view(1, 3, 1, 1) * scale for v in (mean, deviation)]
    return pair[0], pair[1]


def _middle(pixels: torch.Tensor, ratio: float) -> torch.Tensor:
    """The largest centred part of (H, W, 3) pixels whose height / width is `ratio`."""
    height, width = pixels.shape[:2]
    kept_height = min(height, max(1, round(width * ratio)))
    kept_width = min(width, max(1, round(height / ratio)))
    top, left = (height - kept_height) // 2, (width - kept_width) // 2
    return pixels[top : top + kept_height, left : left + kept_width]


def _through_jpeg(images: torch.Tensor, quality: int) -> torch.Tensor:
    """Encode (N, 3, H, W) uint8 RGB and decode it again; 0.8 ms for 256x256 on a processor, where
    libjpeg is quicker than torch."""
    if images.is_cuda:
        return through_jpeg(images, quality)
    decoded = []
    for image in images:
        encoded = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(encoded, "JPEG", quality=quality)
        decoded.append(torch.from_numpy(np.array(Image.open(encoded))).permute(2, 0, 1))
    return torch.stack(decoded)
