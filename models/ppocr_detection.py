"""Find lines of text with a PP-OCR detector (differentiable binarisation), batched across images.

Pictures of different sizes share a forward pass when little padding is needed for it. What the
network returns is a probability for each pixel to be text; RapidOCR's post-processing turns the map
into rotated boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rapidocr.ch_ppocr_det.utils import DBPostProcess

from models.device import Device
from models.onnx_graph import OnnxModule
from models.resizing import resized

Quads = NDArray[np.float32]
"""Boxes of shape (n, 4, 2): x and y of top left, top right, bottom right and bottom left."""

_STRIDE = 32
"""The network halves its input five times."""
_WASTE = 1.25
"""How much larger a shared canvas may be than what its pictures need alone."""
_FORWARD_PIXELS = {"cpu": 4_000_000, "cuda": 32_000_000}
"""Pixels in one forward pass. A pass over 4 megapixels needs about 1.5 GB in float32; on a
processor larger ones are not faster."""


@dataclass(frozen=True)
class _Scaled:
    """A picture (uint8, (3, height, width)) that was made small enough, and where it belongs."""

    index: int
    image: torch.Tensor
    original: tuple[int, int]

    @property
    def canvas(self) -> tuple[int, int]:
        height, width = self.image.shape[1:]
        return -(-height // _STRIDE) * _STRIDE, -(-width // _STRIDE) * _STRIDE


class TextDetector:
    """Finds text lines in pictures.

    Attributes:
        max_side: pictures are reduced until their longer side has this many pixels.
    """

    def __init__(
        self,
        weights: Path,
        device: Device,
        *,
        max_side: int = 960,
        pixel_threshold: float = 0.3,
        box_threshold: float = 0.5,
        unclip_ratio: float = 1.6,
        max_candidates: int = 1000,
    ) -> None:
        """Load the network.

        Args:
            weights: PP-OCR detection model in ONNX.
            max_side: 960 is PaddleOCR's own limit.
            pixel_threshold, box_threshold: least probability of a pixel and mean of a box.
            unclip_ratio: how far the shrunken boxes of the network are grown again.
            max_candidates: contours looked at in one picture.

        Raises:
            ModelError: the weights cannot be read.
        """
        self.max_side = max_side
        self._device = device
        network = OnnxModule(weights).eval().to(device.torch_device, device.dtype)
        self._network = network.to(memory_format=torch.channels_last)
        self._boxes = DBPostProcess(
            thresh=pixel_threshold,
            box_thresh=box_threshold,
            max_candidates=max_candidates,
            unclip_ratio=unclip_ratio,
            use_dilation=True,
        )

    @torch.inference_mode()
    def detect(self, images: Sequence[torch.Tensor]) -> list[Quads]:
        """Text lines of each picture in reading order.

        Args:
            images: uint8 RGB tensors of shape (height, width, 3), of any sizes, on any device.

        Returns:
            For each picture boxes of shape (n, 4, 2) in its own pixels.
        """
        found: list[Quads] = [np.zeros((0, 4, 2), np.float32) for _ in images]
        scaled = [self._scale(index, image) for index, image in enumerate(images)]
        for group in _groups(scaled, _FORWARD_PIXELS[self._device.torch_device.type]):
            for item, probabilities in zip(group, self._probabilities(group), strict=True):
                boxes, _ = self._boxes(probabilities, item.original)
                if len(boxes):
                    found[item.index] = in_reading_order(np.asarray(boxes, np.float32))
        return found

    def _scale(self, index: int, image: torch.Tensor) -> _Scaled:
        height, width = int(image.shape[0]), int(image.shape[1])
        ratio = min(1.0, self.max_side / max(height, width))
        small = resized(image, max(1, round(height * ratio)), max(1, round(width * ratio)))
        return _Scaled(index, small.to(self._device.torch_device), (height, width))

    def _probabilities(self, group: Sequence[_Scaled]) -> list[NDArray[np.float32]]:
        """One forward pass; maps of shape (1, 1, height, width) without their padding."""
        height = max(item.canvas[0] for item in group)
        width = max(item.canvas[1] for item in group)
        # Padding is the middle of the range, which is 0 once normalised. bfloat16 holds 127.5 and
        # all pixel values exactly.
        values = torch.full(
            (len(group), 3, height, width),
            127.5,
            dtype=self._device.dtype,
            device=self._device.torch_device,
        ).contiguous(memory_format=torch.channels_last)
        for row, item in zip(values, group, strict=True):
            # The network was trained on OpenCV's channel order.
            row[:, : item.image.shape[1], : item.image.shape[2]] = item.image.flip(0)
        maps = self._network(values.div_(127.5).sub_(1.0))
        probabilities: NDArray[np.float32] = maps.float().cpu().numpy()
        return [
            probabilities[row : row + 1, :, : item.image.shape[1], : item.image.shape[2]]
            for row, item in enumerate(group)
        ]


def _groups(images: Sequence[_Scaled], limit: int) -> Iterator[list[_Scaled]]:
    """Cut `images` into batches whose shared canvas is little larger than they need."""
    group: list[_Scaled] = []
    needed = height = width = 0
    for item in sorted(images, key=lambda item: item.canvas):
        own_height, own_width = item.canvas
        shared = max(height, own_height) * max(width, own_width) * (len(group) + 1)
        alone = needed + own_height * own_width
        if group and (shared > limit or shared > alone * _WASTE):
            yield group
            group, needed, height, width = [], 0, 0, 0
        group.append(item)
        needed += own_height * own_width
        height, width = max(height, own_height), max(width, own_width)
    if group:
        yield group


def in_reading_order(quads: Quads) -> Quads:
    """Sort boxes from top to bottom and, within a line, from left to right.

    Boxes are on one line when their centres differ by less than half the height of the lower box.
    """
    centres = quads.mean(axis=1)
    heights = np.linalg.norm(quads[:, 3] - quads[:, 0], axis=1)
    lines: list[list[int]] = []
    for index in np.argsort(centres[:, 1], kind="stable").tolist():
        if lines:
            last = lines[-1][-1]
            step = abs(centres[index, 1] - centres[last, 1])
            if step < 0.5 * min(heights[index], heights[last]):
                lines[-1].append(index)
                continue
        lines.append([index])
    order = [i for line in lines for i in sorted(line, key=lambda i: float(centres[i, 0]))]
    return quads[order]
