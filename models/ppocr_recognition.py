"""Read cropped lines of text with a PP-OCR recogniser, batched across images by width.

Lines are brought to the height that the network was trained on and sorted into buckets of similar
width, so that a batch of short words is not padded to the length of a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rapidocr.ch_ppocr_rec.utils import CTCLabelDecode

from models.device import Device
from models.errors import ModelError
from models.onnx_graph import OnnxModule

Crop = NDArray[np.uint8]
"""A straightened line of text: RGB, shape (height, width, 3)."""

_BUCKET = 160
"""Widths are rounded up to multiples of this many pixels."""
_LONGEST = 4800
"""Wider lines are squeezed to this width; at a height of 48 it holds about 200 characters."""
_FORWARD_COLUMNS = {"cpu": 8_192, "cuda": 65_536}
"""Pixel columns in one forward pass. Every eighth column yields a probability for each of about
18 000 characters, so 8192 columns take 75 MB for the result alone."""


class Reading(NamedTuple):
    """What a line says, and the mean probability (0 to 1) of its characters."""

    text: str
    score: float


class TextRecogniser:
    """Reads straightened lines of text."""

    def __init__(self, weights: Path, device: Device, *, height: int = 48) -> None:
        """Load the network.

        Args:
            weights: PP-OCR recognition model in ONNX, which holds its own list of characters.
            height: the height in pixels that it was trained on.

        Raises:
            ModelError: the weights cannot be read, or hold no list of characters.
        """
        self._device = device
        self._height = height
        network = OnnxModule(weights)
        characters = network.metadata.get("character", "").splitlines()
        if not characters:
            raise ModelError(
                f"{weights} has no list of characters in its metadata (key 'character'); use a "
                "PP-OCR recognition model as RapidOCR distributes it"
            )
        self._decode = CTCLabelDecode(character=characters)
        # Attention and normalisation stay in float32: autocast lowers only what bears it.
        self._network = network.eval().to(device.torch_device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def read(self, crops: Sequence[Crop]) -> list[Reading]:
        """What each line says; an empty text with score 0 if nothing can be read."""
        readings = [Reading("", 0.0)] * len(crops)
        widths = [self._width(crop) for crop in crops]
        for group, width in _buckets(widths, _FORWARD_COLUMNS[self._device.torch_device.type]):
            found = self._forward([crops[i] for i in group], [widths[i] for i in group], width)
            for index, reading in zip(group, found, strict=True):
                readings[index] = reading
        return readings

    def _width(self, crop: Crop) -> int:
        height, width = crop.shape[:2]
        return min(_LONGEST, max(1, math.ceil(self._height * int(width) / int(height))))

    def _forward(self, crops: Sequence[Crop], widths: Sequence[int], canvas: int) -> list[Reading]:
        lines = np.full((len(crops), self._height, canvas, 3), 127.5, np.float32)
        for line, crop, width in zip(lines, crops, widths, strict=True):
            # The network was trained on OpenCV's channel order.
            line[:, :width] = cv2.resize(crop, (width, self._height))[:, :, ::-1]
        # Permuting gives the channels-last layout without a copy.
        values = torch.from_numpy(lines).to(self._device.torch_device).permute(0, 3, 1, 2)
        target = self._device.torch_device.type
        lowered = self._device.dtype != torch.float32
        with torch.autocast(target, self._device.dtype if lowered else None, enabled=lowered):
            probabilities = self._network(values.div_(127.5).sub_(1.0))
        best, characters = probabilities.float().max(dim=2)
        decoded, _ = self._decode.decode(
            characters.cpu().numpy(), best.cpu().numpy(), remove_duplicate=True
        )
        return [Reading(text, min(1.0, float(score))) for text, score in decoded]


def _buckets(widths: Sequence[int], limit: int) -> Iterator[tuple[list[int], int]]:
    """Positions of lines that share a forward pass, with the width of their canvas."""
    order = sorted(range(len(widths)), key=lambda index: widths[index])
    group: list[int] = []
    canvas = 0
    for index in order:
        own = -(-widths[index] // _BUCKET) * _BUCKET
        if group and (own != canvas or canvas * (len(group) + 1) > limit):
            yield group, canvas
            group = []
        group.append(index)
        canvas = own
    if group:
        yield group, canvas
