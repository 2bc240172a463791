"""Scores: how strongly each label of one or more classifiers applies to a picture as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field

from models.catalog import Catalog
from models.classifiers import Classifier, load_classifier
from models.device import Device
from operators.frame import Frame
from operators.frame_pixels import pieces, pixels_of
from operators.least_size import LeastSize, largest
from operators.operator import Operator, OperatorError
from operators.operator_options import checked


class ScoresOptions(BaseModel):
    """The settings of the operator `scores`.

    Attributes:
        models: classifiers of the catalogue. Their labels become the names of the scores, so no
            two of them may share one.
        batch: pictures in one forward pass at most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: list[str] = Field(default=["open-nsfw"], min_length=1)
    batch: int = Field(default=64, ge=1)


class ScoresOperator(Operator):
    """Scores a batch with one forward pass of each classifier."""

    name: ClassVar[str] = "scores"
    depends_on_content_only: ClassVar[bool] = True

    def __init__(self, options: Mapping[str, Any], device: Device, catalog: Catalog) -> None:
        super().__init__(options, device, catalog)
        self._settings = checked(self.name, options, ScoresOptions)
        self._cards = [catalog.get(model) for model in self._settings.models]
        self._refuse_shared_labels()
        self._classifiers: list[Classifier] = []

    def setup(self) -> None:
        """Load the classifiers and try each on an empty picture.

        Raises:
            ModelError: one of them cannot be used.
        """
        self._classifiers = [load_classifier(card, self.device) for card in self._cards]

    def process(self, frames: Sequence[Frame]) -> None:
        if not self._classifiers:
            raise OperatorError(f"operator '{self.name}' was not set up; call setup() first")
        for piece in pieces(frames, self.name, self._settings.batch):
            for classifier in self._classifiers:
                self._score([frame for frame in piece if not frame.failed], classifier)

    def model_versions(self) -> dict[str, str]:
        """The role is the operator's name, or `scores.<model>` if there are several."""
        if len(self._cards) == 1:
            return {self.name: self._cards[0].full_name}
        return {f"{self.name}.{card.name}": card.full_name for card in self._cards}

    def least_size(self) -> LeastSize | None:
        return largest(LeastSize.to_cover(each.resized_to) for each in self._classifiers)

    def close(self) -> None:
        self._classifiers = []

    def _refuse_shared_labels(self) -> None:
        owner: dict[str, str] = {}
        for card in self._cards:
            for label in card.labels.values():
                if label in owner:
                    raise OperatorError(
                        f"operator '{self.name}': the models '{owner[label]}' and '{card.name}' "
                        f"both have the label '{label}'; rename it in the catalogue entry of one"
                    )
                owner[label] = card.name

    def _score(self, frames: Sequence[Frame], classifier: Classifier) -> None:
        if not frames:
            return
        scores = classifier.scores(classifier.batch([pixels_of(frame) for frame in frames]))
        sound = torch.isfinite(scores).all(1).tolist()
        versions = self.model_versions()
        for frame, row, good in zip(frames, scores.clamp(0, 1).tolist(), sound, strict=True):
            if not good:
                frame.fail(
                    self.name,
                    "no-score",
                    f"'{classifier.card.full_name}' gives this picture scores that are no numbers; "
                    "with precision fp16, try bf16 or fp32",
                )
                continue
            frame.findings.scores.update(zip(classifier.labels, row, strict=True))
            frame.findings.models.update(versions)
