"""Read all text in a batch of pictures with PP-OCR: detect, straighten, recognise.

There is no angle classifier: it turns small text upside down (19.2 % character error with it on
small text, 0.1 % without). Instead a line that is read with little confidence is read once more
turned by 180 degrees, and the better of the two is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rapidocr.utils.process_img import get_rotate_crop_image

from models.ppocr_detection import TextDetector
from models.ppocr_lines import TALL, LineSource, Place
from models.ppocr_recognition import Reading, TextRecogniser

Point = tuple[float, float]
ReadPlaces = Callable[[Sequence[Place]], list[Reading]]


@dataclass(frozen=True)
class Line:
    """A line of text: `corners` are in pixels, clockwise from the start of the text."""

    text: str
    score: float
    corners: tuple[Point, Point, Point, Point]


class TextReader:
    """Detection and recognition over a batch of pictures."""

    def __init__(
        self, detector: TextDetector, recogniser: TextRecogniser, *, reread_below: float = 0.9
    ) -> None:
        """`reread_below`: lines that score less are read again upside down. With 0.9 a page of
        upright text costs hardly more, and upside-down text is read as well as upright text."""
        self._detector = detector
        self._recogniser = recogniser
        self._reread_below = reread_below

    def close(self) -> None:
        """Release what the detector holds."""
        self._detector.close()

    def read(self, images: Sequence[torch.Tensor]) -> list[list[Line]]:
        """The lines of each picture in reading order, whatever their score.

        Args:
            images: uint8 RGB tensors of shape (height, width, 3), of any sizes, all on one device.
        """
        found: list[list[Line]] = [[] for _ in images]
        quads = self._detector.detect(images)
        places = [_upright(Place(image, quad)) for image, own in enumerate(quads) for quad in own]
        if not places:
            return found
        if images[0].is_cuda:
            needed = [image for image, own in enumerate(quads) if len(own)]
            read = _on_device(self._recogniser, images, needed)
        else:
            read = _on_processor(self._recogniser, images)
        readings = read(places)
        doubtful = [i for i, reading in enumerate(readings) if reading.score < self._reread_below]
        again = [places[i].turned(2) for i in doubtful]
        for i, place, reading in zip(doubtful, again, read(again) if again else [], strict=True):
            if reading.score > readings[i].score:
                readings[i], places[i] = reading, place
        for place, reading in zip(places, readings, strict=True):
            if reading.text.strip():
                found[place.image].append(_line(place, reading))
        return found


def _upright(place: Place) -> Place:
    height, width = place.size
    return place.turned(1) if height / width >= TALL else place


def _line(place: Place, reading: Reading) -> Line:
    corners = [(x, y) for x, y in place.quad.tolist()]
    return Line(reading.text, reading.score, (corners[0], corners[1], corners[2], corners[3]))


def _on_device(
    recogniser: TextRecogniser, images: Sequence[torch.Tensor], needed: Sequence[int]
) -> ReadPlaces:
    source = LineSource(images, needed)
    return lambda places: recogniser.read_places(source, places)


def _on_processor(recogniser: TextRecogniser, images: Sequence[torch.Tensor]) -> ReadPlaces:
    pixels = [image.numpy() for image in images]
    return lambda places: recogniser.read([_cut(pixels[p.image], p) for p in places])


def _cut(pixels: NDArray[np.uint8], place: Place) -> NDArray[np.uint8]:
    """The line, straightened. Its place says how it is turned, so it is never too tall."""
    crop: NDArray[np.uint8] = get_rotate_crop_image(pixels, np.ascontiguousarray(place.quad))
    return crop
