"""Read straightened lines of text with a PP-OCR recogniser, batched across images by width.

Lines are brought to the height that the network was trained on and sorted into buckets of similar
width, so that a batch of short words is not padded to the length of a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from models.cuda_graphs import SIZES, GraphedNetwork
from models.device import Device
from models.errors import ModelError
from models.onnx_graph import OnnxModule
from models.ppocr_lines import LineSource, Place

Crop = NDArray[np.uint8]
"""A straightened line of text: RGB, shape (height, width, 3)."""

_BUCKET = 160
"""Widths are rounded up to multiples of this many pixels."""
_LONGEST = 4800
"""Wider lines are squeezed to this width; at a height of 48 it holds about 200 characters."""
_FORWARD_COLUMNS = {"cpu": 8_192, "cuda": 32_768}
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
        # Class 0 is CTC's blank; PaddleOCR adds the space last.
        self._characters = ["", *characters, " "]
        # Attention and normalisation stay in float32: autocast lowers only what bears it.
        self._network = network.eval().to(device.torch_device).to(memory_format=torch.channels_last)
        self._graphed = GraphedNetwork(self._forward, device.torch_device, most=48)

    def read(self, crops: Sequence[Crop]) -> list[Reading]:
        """What each line says; an empty text with score 0 if nothing can be read."""
        widths = [self._width(*crop.shape[:2]) for crop in crops]

        def lines(group: Sequence[int], canvas: int) -> torch.Tensor:
            return self._lines([crops[i] for i in group], [widths[i] for i in group], canvas)

        return self._read(widths, lines)

    def read_places(self, source: LineSource, places: Sequence[Place]) -> list[Reading]:
        """What stands in each place of pictures that are on the network's device."""
        widths = [self._width(*place.size) for place in places]

        def lines(group: Sequence[int], canvas: int) -> torch.Tensor:
            chosen, own = [places[i] for i in group], [widths[i] for i in group]
            return source.cut(chosen, own, self._height, canvas)

        return self._read(widths, lines)

    @torch.inference_mode()
    def _read(
        self, widths: Sequence[int], lines: Callable[[Sequence[int], int], torch.Tensor]
    ) -> list[Reading]:
        readings = [Reading("", 0.0)] * len(widths)
        limit = _FORWARD_COLUMNS[self._device.torch_device.type]
        # On a GPU every pass is started before the first result is waited for.
        passes = [
            (group, self._graphed(lines(group, canvas)))
            for group, canvas in _buckets(widths, limit, SIZES[-1])
        ]
        for group, found in passes:
            for index, reading in zip(group, self._readings(found.cpu().numpy()), strict=True):
                readings[index] = reading
        return readings

    def _width(self, height: int, width: int) -> int:
        return min(_LONGEST, max(1, math.ceil(self._height * width / height)))

    def _lines(self, crops: Sequence[Crop], widths: Sequence[int], canvas: int) -> torch.Tensor:
        lines = np.full((len(crops), self._height, canvas, 3), 127.5, np.float32)
        for line, crop, width in zip(lines, crops, widths, strict=True):
            line[:, :width] = cv2.resize(crop, (width, self._height))
        # Permuting gives the channels-last layout without a copy.
        return torch.from_numpy(lines).permute(0, 3, 1, 2)

    def _forward(self, lines: torch.Tensor) -> torch.Tensor:
        """For each step along the lines the best character and its probability.

        Args:
            lines: RGB from 0 to 255, shape (N, 3, height, canvas).

        Returns:
            float32, shape (N, 2, steps): probabilities, and characters, whose numbers it holds
            exactly.
        """
        # The network was trained on OpenCV's channel order.
        values = (lines.flip(1) / 127.5 - 1.0).contiguous(memory_format=torch.channels_last)
        target = self._device.torch_device.type
        lowered = self._device.dtype != torch.float32
        with torch.autocast(target, self._device.dtype if lowered else None, enabled=lowered):
            probabilities = self._network(values)
        best, characters = probabilities.max(dim=2)
        return torch.stack((best.float(), characters.float()), 1)

    def _readings(self, found: NDArray[np.float32]) -> Iterator[Reading]:
        """CTC: of equal neighbours one is kept, then the blanks are dropped."""
        characters = found[:, 1].astype(np.int64)
        kept = characters != 0
        kept[:, 1:] &= characters[:, 1:] != characters[:, :-1]
        for row, numbers, where in zip(found[:, 0], characters, kept, strict=True):
            if not where.any():
                yield Reading("", 0.0)
                continue
            text = "".join([self._characters[number] for number in numbers[where].tolist()])
            yield Reading(text, min(1.0, float(row[where].mean())))


def _buckets(widths: Sequence[int], limit: int, most: int) -> Iterator[tuple[list[int], int]]:
    """Positions of lines that share a forward pass, with the width of their canvas."""
    order = sorted(range(len(widths)), key=lambda index: widths[index])
    group: list[int] = []
    canvas = 0
    for index in order:
        own = -(-widths[index] // _BUCKET) * _BUCKET
        full = len(group) == most or canvas * (len(group) + 1) > limit
        if group and (own != canvas or full):
            yield group, canvas
            group = []
        group.append(index)
        canvas = own
    if group:
        yield group, canvas
