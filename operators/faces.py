"""Faces: where people's faces are in a picture, for policies and for whatever must not show them.

It runs only where the settings list it: looking for faces at 640 pixels takes four to five times
the processor time of all that NudeNet finds at 320 (58 against 13 ms in bfloat16), which includes
faces that are large and seen from the front. Pictures that leave the service are searched for faces
in any case, when they leave (`operators.thumbnail`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field

from models.catalog import Catalog
from models.device import Device
from models.faces import MAX_FACES, STRIDE, FaceDetector, load_face_detector, same_canvas
from operators.findings import Box, Face
from operators.frame import Frame
from operators.frame_pixels import original_size, pieces, pixels_of
from operators.least_size import LeastSize
from operators.letterbox import letterbox
from operators.operator import Operator, OperatorError
from operators.operator_options import checked


class FacesOptions(BaseModel):
    """The settings of the operator `faces`.

    Attributes:
        model: a face detector of the catalogue.
        confidence: faces must score higher; the catalogue's when left out. 0.2 is what is asked for
            where a face that is missed does more harm than a thing that is taken for one.
        iou: of two faces that overlap more, the better one stays; the catalogue's when left out.
        max_faces: kept for each picture, best first.
        input_size: the longer side in pixels, a multiple of 32, that pictures are brought to. At
            640 faces are found from about 10 pixels on. Larger finds smaller ones and takes longer.
        batch: pictures in one forward pass at most. 8 pictures of 640 pixels need about 1 GB in
            float32.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "centerface"
    confidence: float | None = Field(default=None, ge=0.0, le=1.0)
    iou: float | None = Field(default=None, ge=0.0, le=1.0)
    max_faces: int = Field(default=MAX_FACES, ge=1)
    input_size: int = Field(default=640, ge=STRIDE, le=4096, multiple_of=STRIDE)
    batch: int = Field(default=8, ge=1)


class FacesOperator(Operator):
    """Finds faces in a batch, with one forward pass for pictures of one shape."""

    name: ClassVar[str] = "faces"
    depends_on_content_only: ClassVar[bool] = True

    def __init__(self, options: Mapping[str, Any], device: Device, catalog: Catalog) -> None:
        super().__init__(options, device, catalog)
        self._settings = checked(self.name, options, FacesOptions)
        self._card = catalog.get(self._settings.model)
        self._detector: FaceDetector | None = None

    def setup(self) -> None:
        """Load the detector and try it on an empty picture.

        Raises:
            ModelError: the model cannot be used; for the one that is shipped the message says how
                its package is installed.
        """
        self._detector = load_face_detector(self._card, self.device)

    def process(self, frames: Sequence[Frame]) -> None:
        for piece in pieces(frames, self.name, self._settings.batch):
            self._detect(piece)

    def model_versions(self) -> dict[str, str]:
        return {self.name: self._card.full_name}

    def least_size(self) -> LeastSize:
        return LeastSize.to_fit((self._settings.input_size, self._settings.input_size))

    def close(self) -> None:
        self._detector = None

    def _detect(self, frames: Sequence[Frame]) -> None:
        if self._detector is None:
            raise OperatorError(f"operator '{self.name}' was not set up; call setup() first")
        settings = self._settings
        originals = [original_size(frame) for frame in frames]
        for canvas, positions in same_canvas(originals, settings.input_size).items():
            own = [frames[position] for position in positions]
            images, placements = letterbox(
                [pixels_of(frame) for frame in own], canvas, [originals[i] for i in positions]
            )
            found = self._detector.detect(
                images, settings.confidence, settings.iou, settings.max_faces
            )
            for frame, boxes, placement in zip(own, found, placements, strict=True):
                corners = placement.to_original(boxes.corners)
                frame.findings.faces = _faces(corners, boxes.scores)
                frame.findings.models[self.name] = self._card.full_name


def _faces(corners: torch.Tensor, scores: torch.Tensor) -> list[Face]:
    """Best first. What lies in the grey margin only has no area in the picture and is dropped."""
    boxes: list[Box] = [tuple(box) for box in corners.tolist()]
    return [
        Face(min(max(score, 0.0), 1.0), box)
        for box, score in zip(boxes, scores.tolist(), strict=True)
        if box[2] > box[0] and box[3] > box[1]
    ]
