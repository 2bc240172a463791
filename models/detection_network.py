"""A detection network that is ready to run: a uint8 batch in, boxes out.

Ultralytics' `predict()` is not used. On a CPU it resets torch's thread count for the whole process
and takes about twice the time of the bare network with suppression. Here a detector is a network, a
scale for its input and one suppression of the whole batch; letterboxing belongs to the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict

from models.catalog import ModelCard
from models.cuda_graphs import GraphedNetwork
from models.device import Device
from models.errors import ModelError
from models.image_input import card_options
from models.suppression import Boxes, suppress

Network = Callable[[torch.Tensor], Any]

DEFAULT_SIZE = 640
"""Ultralytics' default training size, for models that do not say their own."""

DEFAULT_CONFIDENCE = 0.25
DEFAULT_IOU = 0.7
"""The defaults of Ultralytics' predictor."""

MAX_DETECTIONS = 300
"""For each image; the default of Ultralytics' predictor."""

PREPARED = 32
"""Up to this batch size, passes are recorded at the start on a GPU, so that none waits for it."""

STRIDE = 32
"""The coarsest feature map of every YOLO network, to whose multiples an input's sides are bound."""


class DetectorOptions(BaseModel):
    """The `options` that a detector's catalogue entry may have.

    Attributes:
        channels: order in which the network takes red, green and blue. Ultralytics trains on RGB.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: Literal["rgb", "bgr"] = "rgb"


class Detector:
    """A detection network that is ready to run. One instance belongs to one thread.

    Attributes:
        card: its catalogue entry.
        labels: class index to label; classes without a label are not reported.
        input_size: (height, width) in pixels that it is best fed.
        fixed_size: whether it accepts no other size.
    """

    def __init__(
        self,
        card: ModelCard,
        device: Device,
        network: Network,
        dtype: torch.dtype,
        names: dict[int, str],
        input_size: tuple[int, int] | None = None,
        fixed_size: bool = False,
        end_to_end: bool = False,
        memory_format: torch.memory_format = torch.contiguous_format,
        recordable: bool = False,
    ) -> None:
        """Use `load_detector`.

        Args:
            dtype: what the network takes.
            names: class index to label as the weights say; the catalogue's labels go first.
            input_size, fixed_size: as the weights say.
            end_to_end: whether the network suppresses duplicates itself.
            memory_format: of the network's input.
            recordable: whether it runs in torch, so that CUDA graphs of it can be recorded. A
                network in another runtime has its own ways.
        """
        self.card = card
        self.labels = dict(card.labels) or names
        if not self.labels:
            raise ModelError(
                f"model '{card.full_name}' names no classes in its file; give 'labels' in its "
                "catalogue entry"
            )
        self.class_count = max(len(names), max(self.labels, default=-1) + 1)
        self.fixed_size = fixed_size
        own_size = input_size or (DEFAULT_SIZE, DEFAULT_SIZE)
        self.input_size = own_size if fixed_size else (card.input_size or own_size)
        self._network = network
        self._dtype = dtype
        self._end_to_end = end_to_end
        self._memory_format = memory_format
        self._device = device
        self._bgr = card_options(card, DetectorOptions).channels == "bgr"
        self._graphed = GraphedNetwork(self._forward, device.torch_device) if recordable else None
        unlabelled = set(range(self.class_count)) - self.labels.keys()
        self._classes = torch.tensor(sorted(self.labels)) if unlabelled else None

    @property
    def module(self) -> torch.nn.Module | None:
        """The network, if it runs in torch; None for one in a runtime of its own."""
        return self._network if isinstance(self._network, torch.nn.Module) else None

    @torch.inference_mode()
    def raw(self, images: torch.Tensor) -> torch.Tensor:
        """The network's own output for a batch.

        Args:
            images: uint8 RGB, shape (N, 3, height, width), on any device; both sides multiples of
                32.

        Returns:
            (N, 4 + classes + extra, anchors), or (N, rows, 6) from networks that suppress
            duplicates themselves; boxes in pixels of the input.
        """
        return self._forward(images) if self._graphed is None else self._graphed(images)

    def _forward(self, images: torch.Tensor) -> torch.Tensor:
        values = images.to(self._device.torch_device, self._dtype)
        if self._bgr:
            values = values.flip(1)
        values = (values / 255).contiguous(memory_format=self._memory_format)
        output = first_output(self._network(values))
        if not isinstance(output, torch.Tensor) or output.ndim != 3:
            raise self._strange_output(output)
        return output

    def detect(
        self,
        images: torch.Tensor,
        confidence: float | None = None,
        iou: float | None = None,
        max_detections: int = MAX_DETECTIONS,
    ) -> list[Boxes]:
        """Find objects in a batch with one forward pass.

        Args:
            images: as for `raw`.
            confidence, iou: the catalogue entry's thresholds when `None`.

        Returns:
            One `Boxes` for each image, in pixels of the input, best first.
        """
        thresholds = self.card.thresholds
        if confidence is None:
            confidence = thresholds.get("confidence", DEFAULT_CONFIDENCE)
        if iou is None:
            iou = thresholds.get("iou", DEFAULT_IOU)
        with torch.inference_mode():
            predictions = self.raw(images)
            return suppress(
                predictions,
                self.class_count,
                confidence,
                iou,
                max_detections,
                self._classes,
                self._is_end_to_end(predictions),
            )

    def check(self, size: tuple[int, int]) -> None:
        """Run one empty picture of `size`, so that a wrong model stops the start, not a batch.

        Raises:
            ModelError: the network cannot take it, or gives something else than boxes.
        """
        try:
            output = self.raw(torch.zeros((1, 3, *size), dtype=torch.uint8))
            if self._graphed is not None:
                self._graphed.prepare((3, *size), torch.uint8, PREPARED)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"model '{self.card.full_name}' fails on an empty picture of "
                f"{size[0]}x{size[1]} pixels ({type(error).__name__}: {error}); check "
                "'input_size', 'format' and 'network' in its catalogue entry"
            ) from error
        channels, columns = output.shape[1:]
        if self._is_end_to_end(output):
            return
        if columns == 4 + self.class_count != channels:
            raise ModelError(
                f"model '{self.card.full_name}' has the output of RT-DETR, which is not supported; "
                "use a YOLO detector"
            )
        if channels < 4 + self.class_count:
            raise ModelError(
                f"model '{self.card.full_name}' knows {channels - 4} classes, but has labels up to "
                f"class {self.class_count - 1}; correct 'labels' in its catalogue entry"
            )

    def _is_end_to_end(self, predictions: torch.Tensor) -> bool:
        """Six columns are finished boxes too; a two-class YOLO has six channels, not columns."""
        return self._end_to_end or predictions.shape[-1] == 6

    def _strange_output(self, output: Any) -> ModelError:
        kind = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        return ModelError(
            f"model '{self.card.full_name}' is no detector that Imagewire can read: its output is "
            f"{kind}, not (images, 4 + classes, anchors) or (images, rows, 6)"
        )


def first_output(output: Any) -> Any:
    """Networks give their boxes first, whatever else they give."""
    while isinstance(output, (tuple, list)):
        output = output[0]
    return output
