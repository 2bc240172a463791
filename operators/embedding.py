"""Embedding: each picture as a point of unit length, so that similar pictures can be searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field

from models.catalog import Catalog
from models.device import Device
from models.embedders import Embedder, load_embedder
from operators.findings import Embedding
from operators.frame import Frame
from operators.frame_pixels import pieces, pixels_of
from operators.least_size import LeastSize
from operators.operator import Operator, OperatorError
from operators.operator_options import checked


class EmbeddingOptions(BaseModel):
    """The settings of the operator `embedding`.

    Attributes:
        model: an encoder of the catalogue. Vectors of different models cannot be compared.
        batch: pictures in one forward pass at most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "efficientnet-lite0"
    batch: int = Field(default=64, ge=1)


class EmbeddingOperator(Operator):
    """Encodes a batch in one forward pass."""

    name: ClassVar[str] = "embedding"
    depends_on_content_only: ClassVar[bool] = True

    def __init__(self, options: Mapping[str, Any], device: Device, catalog: Catalog) -> None:
        super().__init__(options, device, catalog)
        self._settings = checked(self.name, options, EmbeddingOptions)
        self._card = catalog.get(self._settings.model)
        self._embedder: Embedder | None = None

    @property
    def dimension(self) -> int:
        """Length of the vectors, known after `setup`.

        Raises:
            OperatorError: before `setup`.
        """
        return self._ready().dimension

    def setup(self) -> None:
        """Load the encoder and try it on an empty picture. Raises `ModelError` if it cannot."""
        self._embedder = load_embedder(self._card, self.device)

    def process(self, frames: Sequence[Frame]) -> None:
        for piece in pieces(frames, self.name, self._settings.batch):
            self._embed(piece)

    def model_versions(self) -> dict[str, str]:
        return {self.name: self._card.full_name}

    def least_size(self) -> LeastSize:
        return LeastSize.to_cover(self._ready().resized_to)

    def close(self) -> None:
        self._embedder = None

    def _ready(self) -> Embedder:
        if self._embedder is None:
            raise OperatorError(f"operator '{self.name}' was not set up; call setup() first")
        return self._embedder

    def _embed(self, frames: Sequence[Frame]) -> None:
        embedder = self._ready()
        vectors = embedder.embed(embedder.batch([pixels_of(frame) for frame in frames]))
        sound = torch.isfinite(vectors).all(1).tolist()
        for frame, vector, good in zip(frames, vectors.tolist(), sound, strict=True):
            if not good:
                frame.fail(
                    self.name,
                    "no-embedding",
                    f"'{self._card.full_name}' gives this picture a vector without a direction; "
                    "with precision fp16, try bf16 or fp32",
                )
                continue
            frame.findings.embedding = Embedding(self._card.full_name, vector)
            frame.findings.models[self.name] = self._card.full_name
