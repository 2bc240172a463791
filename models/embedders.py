"""Image encoders: a picture becomes a point, and similar pictures become near points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch.nn import functional

from models.catalog import ModelCard
from models.device import Device
from models.image_input import ImageInput, card_options
from models.image_network import ImageNetwork


class EmbedderOptions(ImageInput):
    """The `options` that an encoder's catalogue entry may have.

    Attributes:
        pooling: of networks that give a vector for each patch: the first (the class token of a
            vision transformer) or the mean of all.
        words: the model of the catalogue (task `text-embedding`) that was trained beside it, for
            searches by words; see `models.text_encoders`.
    """

    pooling: Literal["first", "mean"] = "first"
    words: str | None = None


class Embedder:
    """An image encoder that is ready to run. One instance belongs to one thread.

    Attributes:
        card: its catalogue entry.
        dimension: length of its vectors.
        input_size: (height, width) in pixels.
        resized_to: (height, width) that pictures are brought to before the middle is cut out.
    """

    def __init__(self, card: ModelCard, device: Device) -> None:
        options = card_options(card, EmbedderOptions)
        self._network = ImageNetwork(card, device, options, "embedding", options.pooling)
        self.card = card
        self.dimension = self._network.width
        self.input_size = self._network.input_size
        self.resized_to = self._network.resized_to

    def batch(self, pictures: Sequence[torch.Tensor]) -> torch.Tensor:
        """Pictures (uint8 RGB, (H, W, 3), any sizes) as a uint8 batch (N, 3, height, width)."""
        return self._network.batch(pictures)

    @torch.inference_mode()
    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Encode a batch in one forward pass.

        Args:
            images: uint8 RGB, shape (N, 3, height, width), as `batch` makes them; on any device.

        Returns:
            float32, shape (N, dimension), on the CPU, each of unit L2 norm. A vector of zeros or
            with a value that is not finite has no direction and becomes NaN throughout.
        """
        vectors = self._network.vectors(images).cpu()
        norms = vectors.norm(dim=1, keepdim=True)
        lost = ~torch.isfinite(norms) | (norms == 0)
        return functional.normalize(vectors, dim=1).masked_fill(lost, torch.nan)


def load_embedder(card: ModelCard, device: Device) -> Embedder:
    """Load the encoder that `card` describes; its weights are verified first.

    Raises:
        ModelError: it is no encoder, cannot be verified, or cannot be loaded.
    """
    return Embedder(card, device)
