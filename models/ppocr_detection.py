"""Find lines of text with a PP-OCR detector (differentiable binarisation), batched across images.

Pictures of different sizes share a forward pass when little padding is needed for it. What the
network returns is a probability for each pixel to be text; `models/ppocr_boxes.py` turns the map
into rotated boxes, several pictures at once in threads. On a GPU all passes are started before the
first map is looked at, so that it computes while the processor looks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.cuda_graphs import GraphedNetwork
from models.device import Device
from models.onnx_graph import OnnxModule
from models.ppocr_boxes import BoxRules, Quads, boxes_in
from models.resizing import resized, resized_alike, same_sized

_STRIDE = 32
"""The network halves its input five times."""
_WASTE = 1.25
"""How much larger a shared canvas may be than what its pictures need alone."""
_FORWARD_PIXELS = {"cpu": 4_000_000, "cuda": 24_000_000}
"""Pixels in one forward pass. A pass over 4 megapixels needs about 1.5 GB in float32; on a
processor larger ones are not faster."""
_RECORDED_SIZES = (1, 2, 4, 8)
"""Larger batches keep a GPU busy for longer than it takes to launch them."""


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
            pixel_threshold, box_threshold, unclip_ratio, max_candidates: see `BoxRules`.

        Raises:
            ModelError: the weights cannot be read.
        """
        self.max_side = max_side
        self._device = device
        network = OnnxModule(weights).eval().to(device.torch_device, device.dtype)
        self._network = network.to(memory_format=torch.channels_last)
        self._graphed = GraphedNetwork(
            self._forward, device.torch_device, most=8, sizes=_RECORDED_SIZES
        )
        self._rules = BoxRules(pixel_threshold, box_threshold, unclip_ratio, max_candidates)
        # Beside one thread there is nothing to gain: a third of the work holds the interpreter.
        threads = min(8, len(os.sched_getaffinity(0))) if device.is_cuda else 1
        self._threads = ThreadPoolExecutor(threads, "text-boxes")

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    @torch.inference_mode()
    def detect(self, images: Sequence[torch.Tensor]) -> list[Quads]:
        """Text lines of each picture in reading order.

        Args:
            images: uint8 RGB tensors of shape (height, width, 3), of any sizes, on any device.

        Returns:
            For each picture boxes of shape (n, 4, 2) in its own pixels.
        """
        pending: dict[int, Future[Quads]] = {}
        passes = []
        for group in _groups(self._scale(images), _FORWARD_PIXELS[self._device.torch_device.type]):
            passes.append(_Pass(group, self._graphed(self._canvas(group))))
            # On a processor a pass has been computed by now, and its maps need not be kept.
            if not self._device.is_cuda:
                self._look(passes.pop(), pending)
        for one in passes:
            self._look(one, pending)
        return [pending[index].result() for index in range(len(images))]

    def _scale(self, images: Sequence[torch.Tensor]) -> list[_Scaled]:
        scaled: dict[int, _Scaled] = {}
        on_gpu = bool(images) and images[0].is_cuda
        for positions in same_sized(images) if on_gpu else ([i] for i in range(len(images))):
            height, width = (int(side) for side in images[positions[0]].shape[:2])
            ratio = min(1.0, self.max_side / max(height, width))
            size = max(1, round(height * ratio)), max(1, round(width * ratio))
            if len(positions) == 1:
                small = resized(images[positions[0]], *size).unsqueeze(0)
            else:
                small = resized_alike([images[i] for i in positions], *size)
            for position, image in zip(positions, small.to(self._device.torch_device), strict=True):
                scaled[position] = _Scaled(position, image, (height, width))
        return [scaled[index] for index in range(len(images))]

    def _canvas(self, group: Sequence[_Scaled]) -> torch.Tensor:
        """Pictures side by side in one batch, in the network's dtype, from 0 to 255."""
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
            row[:, : item.image.shape[1], : item.image.shape[2]] = item.image
        return values

    def _forward(self, canvas: torch.Tensor) -> torch.Tensor:
        # The network was trained on OpenCV's channel order.
        values = (canvas.flip(1) / 127.5 - 1.0).contiguous(memory_format=torch.channels_last)
        maps: torch.Tensor = self._network(values)
        # numpy has no bfloat16; of float16 half as much is copied.
        return maps if maps.dtype == torch.float16 else maps.float()

    def _look(self, one: _Pass, pending: dict[int, Future[Quads]]) -> None:
        """Have the boxes found in the maps of a pass, once they are there."""
        maps = one.maps().numpy()
        for item, probabilities in zip(one.group, maps, strict=True):
            own = probabilities[0, : item.image.shape[1], : item.image.shape[2]]
            pending[item.index] = self._threads.submit(
                _ordered_boxes, own, item.original, self._rules
            )


class _Pass:
    """A forward pass that was started; its maps are on their way to the host."""

    def __init__(self, group: Sequence[_Scaled], maps: torch.Tensor) -> None:
        self.group = group
        self._ready: torch.cuda.Event | None = None
        self._maps = maps
        if maps.is_cuda:
            self._maps = torch.empty(maps.shape, dtype=maps.dtype, pin_memory=True)
            self._maps.copy_(maps, non_blocking=True)
            self._ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._ready.record()

    def maps(self) -> torch.Tensor:
        """Shape (N, 1, height, width), on the CPU; waits for the device."""
        if self._ready is not None:
            self._ready.synchronize()
        return self._maps


def _ordered_boxes(
    probabilities: np.ndarray[tuple[int, int], np.dtype[np.floating]],
    size: tuple[int, int],
    rules: BoxRules,
) -> Quads:
    boxes = boxes_in(probabilities, size, rules)
    return in_reading_order(boxes) if len(boxes) else boxes


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
    heights = np.linalg.norm(quads[:, 3] - quads[:, 0], axis=1).tolist()
    down = centres[:, 1].tolist()
    lines: list[list[int]] = []
    for index in np.argsort(centres[:, 1], kind="stable").tolist():
        if lines:
            last = lines[-1][-1]
            if abs(down[index] - down[last]) < 0.5 * min(heights[index], heights[last]):
                lines[-1].append(index)
                continue
        lines.append([index])
    order = [i for line in lines for i in sorted(line, key=lambda i: float(centres[i, 0]))]
    return quads[order]
