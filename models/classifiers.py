"""Image classifiers: a picture gets a score between 0 and 1 for each label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from models.catalog import ModelCard
from models.device import Device
from models.errors import ModelError
from models.image_input import ImageInput, card_options
from models.image_network import ImageNetwork


class ClassifierOptions(ImageInput):
    """The `options` that a classifier's catalogue entry may have.

    Attributes:
        activation: what turns the network's output into scores; `none` if it already gives them.
    """

    activation: Literal["none", "softmax", "sigmoid"] = "none"


class Classifier:
    """An image classifier that is ready to run. One instance belongs to one thread.

    Attributes:
        card: its catalogue entry.
        labels: the labels of the columns of `scores`, in their order.
        input_size: (height, width) in pixels.
        resized_to: (height, width) that pictures are brought to before the middle is cut out.
    """

    def __init__(self, card: ModelCard, device: Device) -> None:
        options = card_options(card, ClassifierOptions)
        if not card.labels:
            raise ModelError(
                f"model '{card.full_name}': a classifier needs 'labels' in its catalogue entry; "
                "they become the names of its scores"
            )
        self._network = ImageNetwork(card, device, options, "classification")
        if max(card.labels) >= self._network.width:
            raise ModelError(
                f"model '{card.full_name}' gives {self._network.width} scores, but has a label for "
                f"class {max(card.labels)}; correct 'labels' in its catalogue entry"
            )
        self._activation = options.activation
        self._columns = list(card.labels)
        self.card = card
        self.labels = list(card.labels.values())
        self.input_size = self._network.input_size
        self.resized_to = self._network.resized_to

    def batch(self, pictures: Sequence[torch.Tensor]) -> torch.Tensor:
        """Pictures (uint8 RGB, (H, W, 3), any sizes) as a uint8 batch (N, 3, height, width)."""
        return self._network.batch(pictures)

    @torch.inference_mode()
    def scores(self, images: torch.Tensor) -> torch.Tensor:
        """Score a batch in one forward pass.

        Args:
            images: uint8 RGB, shape (N, 3, height, width), as `batch` makes them; on any device.

        Returns:
            float32, shape (N, labels), on the CPU.
        """
        output = self._network.vectors(images)
        if self._activation == "softmax":
            output = output.softmax(1)
        elif self._activation == "sigmoid":
            output = output.sigmoid()
        return output[:, self._columns].cpu()


def load_classifier(card: ModelCard, device: Device) -> Classifier:
    """Load the classifier that `card` describes; its weights are verified first.

    Raises:
        ModelError: it is no classifier, cannot be verified, or cannot be loaded.
    """
    return Classifier(card, device)
