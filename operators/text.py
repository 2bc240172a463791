"""Text: the lines that can be read in a picture, with their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from models.catalog import Catalog, ModelCard
from models.device import Device
from models.errors import ModelError
from models.ppocr import Line, TextReader
from models.ppocr_detection import TextDetector
from models.ppocr_recognition import TextRecogniser
from operators.findings import Quad, TextLine
from operators.frame import Frame
from operators.frame_pixels import original_size, pieces, pixels_of
from operators.least_size import LeastSize
from operators.operator import Operator, OperatorError
from operators.operator_options import checked


class TextOptions(BaseModel):
    """The settings of the operator `text`.

    Attributes:
        detector: a text detection model of the catalogue.
        recognizer: a text recognition model of the catalogue.
        min_score: lines that score less are not reported; 0.5 is RapidOCR's default.
        reread_below: lines that score less are read once more upside down.
        max_side: for finding text, pictures are reduced to this longer side in pixels; lines are
            then read from the full picture. Larger finds smaller text and takes longer.
        reading_side: the longer side in pixels that is enough to read lines from; larger JPEGs may
            be decoded at a reduced size, never below it. All of the picture when left out.
        batch: pictures held at once. Forward passes are cut by size besides.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    detector: str = "ppocr-v6-det-small"
    recognizer: str = "ppocr-v6-rec-small"
    min_score: float = Field(default=0.5, ge=0.0, le=1.0)
    reread_below: float = Field(default=0.9, ge=0.0, le=1.0)
    max_side: int = Field(default=960, ge=32)
    reading_side: int | None = Field(default=None, ge=32)
    batch: int = Field(default=32, ge=1)


class TextOperator(Operator):
    """Reads text with PP-OCR, batched across pictures in detection and in recognition."""

    name: ClassVar[str] = "text"
    depends_on_content_only: ClassVar[bool] = True

    def __init__(self, options: Mapping[str, Any], device: Device, catalog: Catalog) -> None:
        super().__init__(options, device, catalog)
        self._settings = checked(self.name, options, TextOptions)
        self._detector_card = catalog.get(self._settings.detector)
        self._recognizer_card = catalog.get(self._settings.recognizer)
        self._version = _joint_name(self._detector_card, self._recognizer_card)
        self._reader: TextReader | None = None

    def setup(self) -> None:
        """Load both networks.

        Raises:
            ModelError: a model is for another task, or cannot be used.
        """
        _check_task(self._detector_card, "text-detection", "detector")
        _check_task(self._recognizer_card, "text-recognition", "recognizer")
        thresholds, options = self._detector_card.thresholds, self._detector_card.options
        detector = TextDetector(
            self._detector_card.verified_path(),
            self.device,
            max_side=self._settings.max_side,
            pixel_threshold=float(thresholds.get("pixel", 0.3)),
            box_threshold=float(thresholds.get("box", 0.5)),
            unclip_ratio=float(options.get("unclip_ratio", 1.6)),
            max_candidates=int(options.get("max_candidates", 1000)),
        )
        size = self._recognizer_card.input_size
        recogniser = TextRecogniser(
            self._recognizer_card.verified_path(), self.device, height=size[0] if size else 48
        )
        self._reader = TextReader(detector, recogniser, reread_below=self._settings.reread_below)

    def process(self, frames: Sequence[Frame]) -> None:
        if self._reader is None:
            raise OperatorError(f"operator '{self.name}' was not set up; call setup() first")
        for piece in pieces(frames, self.name, self._settings.batch):
            found = self._reader.read([pixels_of(frame) for frame in piece])
            for frame, lines in zip(piece, found, strict=True):
                height, width = pixels_of(frame).shape[:2]
                scale = original_size(frame)[1] / width, original_size(frame)[0] / height
                frame.findings.texts = [
                    TextLine(line.text, line.score, _scaled(line.corners, *scale))
                    for line in lines
                    if line.score >= self._settings.min_score
                    and not _is_a_shape(line, width * height)
                ]
                frame.findings.models[self.name] = self._version

    def model_versions(self) -> dict[str, str]:
        return {self.name: self._version}

    def least_size(self) -> LeastSize | None:
        side = self._settings.reading_side
        return None if side is None else LeastSize(longer=max(side, self._settings.max_side))

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None


def _scaled(corners: Quad, x: float, y: float) -> Quad:
    """From pixels of the decoded picture to pixels of the original."""
    first, second, third, fourth = ((across * x, down * y) for across, down in corners)
    return first, second, third, fourth


def _is_a_shape(line: Line, picture_area: int) -> bool:
    """Whether what was read is rather the outline of the thing in the picture.

    On close-ups of one round thing the detector takes the whole for a line, and the recogniser is
    sure of it: scikit-image's cup of coffee reads `8` with a score of 0.99, its retina `6`. Text of
    that size has more than two characters, or covers less than half of the picture.
    """
    if len(line.text.strip()) > 2:
        return False
    corners = line.corners
    doubled = sum(
        x1 * y2 - x2 * y1
        for (x1, y1), (x2, y2) in zip(corners, (*corners[1:], corners[0]), strict=True)
    )
    return abs(doubled) / 2 > 0.5 * picture_area


def _check_task(card: ModelCard, task: str, role: str) -> None:
    if card.task != task:
        raise ModelError(
            f"model '{card.full_name}' is for {card.task}, but operator 'text' uses it as its "
            f"{role}, which must be for {task}"
        )


def _joint_name(detector: ModelCard, recognizer: ModelCard) -> str:
    """One name for two networks of a family (`ppocr-v6-small@3.10.0`), else both names."""
    family = detector.name.replace("-det", "")
    if family == recognizer.name.replace("-rec", "") and detector.version == recognizer.version:
        return f"{family}@{detector.version}"
    return f"{detector.full_name}+{recognizer.full_name}"
