"""Objects: what a detector sees, as labelled boxes in pixels of the original picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from models.catalog import Catalog
from models.detection_network import MAX_DETECTIONS, STRIDE, Detector
from models.detectors import load_detector
from models.device import Device
from models.suppression import Boxes
from operators.findings import Box, Detection
from operators.frame import Frame
from operators.frame_pixels import original_size, pieces, pixels_of
from operators.least_size import LeastSize
from operators.letterbox import Placement, letterbox
from operators.operator import Operator, OperatorError
from operators.operator_options import checked


class ObjectsOptions(BaseModel):
    """The settings of the operator `objects`.

    Attributes:
        model: a detector of the catalogue.
        confidence: objects must score higher; the catalogue's when left out.
        iou: of two boxes of one label that overlap more, the better one stays; the catalogue's
            when left out.
        max_detections: kept for each picture, best first.
        input_size: side in pixels of the square that pictures are letterboxed into, a multiple of
            32; the catalogue's when left out. Larger finds smaller things and takes longer.
        batch: pictures in one forward pass at most. 32 pictures of 640 pixels need about 1 GB
            in float32.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "nudenet-320n"
    confidence: float | None = Field(default=None, ge=0.0, le=1.0)
    iou: float | None = Field(default=None, ge=0.0, le=1.0)
    max_detections: int = Field(default=MAX_DETECTIONS, ge=1)
    input_size: int | None = Field(default=None, ge=STRIDE, multiple_of=STRIDE)
    batch: int = Field(default=32, ge=1)


class ObjectsOperator(Operator):
    """Detects objects in a batch with one forward pass and one suppression."""

    name: ClassVar[str] = "objects"
    depends_on_content_only: ClassVar[bool] = True

    def __init__(self, options: Mapping[str, Any], device: Device, catalog: Catalog) -> None:
        super().__init__(options, device, catalog)
        self._settings = checked(self.name, options, ObjectsOptions)
        self._card = catalog.get(self._settings.model)
        self._detector: Detector | None = None
        self._size = (0, 0)

    def setup(self) -> None:
        """Load the detector and try it on an empty picture.

        Raises:
            ModelError: the model cannot be used.
            OperatorError: the detector cannot be fed the size that the settings ask for.
        """
        detector = load_detector(self._card, self.device)
        self._size = self._chosen_size(detector)
        detector.check(self._size)
        self._detector = detector

    def process(self, frames: Sequence[Frame]) -> None:
        for piece in pieces(frames, self.name, self._settings.batch):
            self._detect(piece)

    def model_versions(self) -> dict[str, str]:
        return {self.name: self._card.full_name}

    def labels(self) -> frozenset[str]:
        """What the detector can tell, once it is set up."""
        return frozenset(self._detector.labels.values()) if self._detector else frozenset()

    def least_size(self) -> LeastSize:
        return LeastSize.to_fit(self._size)

    def close(self) -> None:
        self._detector = None

    def _chosen_size(self, detector: Detector) -> tuple[int, int]:
        asked = self._settings.input_size
        if asked is None or (asked, asked) == detector.input_size:
            return detector.input_size
        if detector.fixed_size:
            height, width = detector.input_size
            raise OperatorError(
                f"operator '{self.name}': input_size is {asked}, but '{self._card.full_name}' was "
                f"exported for {height}x{width} pixels only; leave input_size out, or export the "
                "model with dynamic=True"
            )
        return (asked, asked)

    def _detect(self, frames: Sequence[Frame]) -> None:
        if self._detector is None:
            raise OperatorError(f"operator '{self.name}' was not set up; call setup() first")
        images, placements = letterbox(
            [pixels_of(frame) for frame in frames],
            self._size,
            [original_size(frame) for frame in frames],
        )
        settings = self._settings
        found = self._detector.detect(
            images, settings.confidence, settings.iou, settings.max_detections
        )
        for frame, boxes, placement in zip(frames, found, placements, strict=True):
            frame.findings.objects = _detections(boxes, placement, self._detector.labels)
            frame.findings.models[self.name] = self._card.full_name


def _detections(boxes: Boxes, placement: Placement, labels: Mapping[int, str]) -> list[Detection]:
    """Best first. What lies in the grey margin only has no area in the picture and is dropped."""
    corners: list[Box] = [tuple(box) for box in placement.to_original(boxes.corners).tolist()]
    scores, classes = boxes.scores.tolist(), boxes.classes.tolist()
    return [
        Detection(labels[kind], min(max(score, 0.0), 1.0), box)
        for box, score, kind in zip(corners, scores, classes, strict=True)
        if box[2] > box[0] and box[3] > box[1]
    ]
