"""Heat maps of stored images: which parts of a picture a model went by.

They are worth seconds of a processor and asked for by a person who looks at one image, so they are
made one at a time, far from the stream, by copies of the models that are loaded at the first
question. The map is computed from the untouched pixels and laid over the picture that may be shown,
in which private places are hidden.
"""

from __future__ import annotations

import asyncio
import io
import logging
from typing import TYPE_CHECKING

from imagewire.api.giving_way import use_few_processors
from imagewire.api.image_queries import KnownImage
from imagewire.api.problems import Problem
from imagewire.api.work_thread import WorkThread
from imagewire.settings import Settings
from models.errors import ModelError

if TYPE_CHECKING:
    from models.heat_maps import ClassifierHeatMaps, DetectorHeatMaps, HeatMap
    from operators.decoder import Decoder
    from operators.findings import Box, Findings
    from operators.frame import Frame

logger = logging.getLogger(__name__)

_MOST_WAITING = 4
_QUALITY = 80
_STRONGEST = 0.6
"""How much of the picture the hottest place covers: what it is must still be seen."""


class HeatMaps:
    """Explains images. Nothing is loaded before it is needed; call `close`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thread = WorkThread("heat maps", _MOST_WAITING)
        self._explainer: _Explainer | None = None

    async def overlay(
        self, content: bytes, known: KnownImage, label: str | None, picture: bytes
    ) -> bytes:
        """A WebP of `picture` with the heat map over it.

        Args:
            content: the image's bytes.
            label: a score, or a kind of object that was found in the image; everything that the
                detector looks at when None.
            picture: of the image, as it may be shown; WebP.

        Raises:
            Problem: 422, there is no such label or the picture cannot be decoded; 503, heat maps
                cannot be made here.
            BusyError: too many wait already.
        """
        return await self._thread.run(lambda: self._overlay(content, known, label, picture))

    async def close(self) -> None:
        """Let go of the models and end the processes that decode."""
        await asyncio.to_thread(self._thread.close)
        if self._explainer is not None:
            self._explainer.close()

    def _overlay(
        self, content: bytes, known: KnownImage, label: str | None, picture: bytes
    ) -> bytes:
        from operators.operator import OperatorError

        try:
            found = self._ready().map(content, known.findings, label)
        except (ModelError, OperatorError) as error:
            logger.warning("no heat map can be made: %s", error)
            raise Problem(
                503, "cannot-explain", "No heat map can be made here", str(error)
            ) from error
        return _laid_over(picture, found)

    def _ready(self) -> _Explainer:
        if self._explainer is None:
            self._explainer = _Explainer(self._settings)
        return self._explainer


class _Explainer:
    """The models that explain; belongs to one thread."""

    def __init__(self, settings: Settings) -> None:
        from models.catalog import load_catalog
        from models.device import choose_device
        from operators.decode import make_decoder
        from operators.objects import ObjectsOptions
        from operators.operator_options import checked
        from operators.scores import ScoresOptions

        def options(name: str) -> dict[str, object]:
            given = settings.operators.get(name, {})
            return {key: value for key, value in given.items() if key not in ("enabled", "when")}

        use_few_processors()
        self._device = choose_device(settings.api.device, "fp32")
        catalog = load_catalog(settings.models.catalogs)
        self._detector_card = catalog.get(
            checked("objects", options("objects"), ObjectsOptions).model
        )
        scores = checked("scores", options("scores"), ScoresOptions)
        self._classifier_cards = [catalog.get(name) for name in scores.models]
        self._detector: DetectorHeatMaps | None = None
        self._classifiers: dict[str, ClassifierHeatMaps] = {}
        limits = settings.decode.limits(settings.fetch.max_bytes)
        self._decoder: Decoder = make_decoder(self._device, limits, threads=1, isolation="process")

    def map(self, content: bytes, findings: Findings, label: str | None) -> HeatMap:
        """The heat map, (height, width) in the proportions of the whole picture, from 0 to 1."""
        card = next(
            (card for card in self._classifier_cards if label in card.labels.values()), None
        )
        boxes = [each.box for each in findings.objects if each.label == label]
        if label is not None and card is None and not boxes:
            raise self._unknown(label, findings)
        frame = self._decoded(content)
        if card is not None and label is not None:
            return self._of_score(frame, card.name, label)
        found = self._of_detector(frame)
        return found if label is None else _within(found, boxes, frame)

    def close(self) -> None:
        self._decoder.close()

    def _decoded(self, content: bytes) -> Frame:
        from operators.frame import Frame, Origin

        frame = Frame("explain", "explain", 0, Origin("", 0, 0, 0), content=content)
        self._decoder.decode([frame])
        if frame.failure is not None:
            raise Problem(
                422,
                "unusable-picture",
                "The picture cannot be used",
                f"the picture cannot be decoded: {frame.failure.detail}",
            )
        return frame

    def _of_score(self, frame: Frame, model: str, label: str) -> HeatMap:
        from models.heat_maps import ClassifierHeatMaps
        from operators.frame_pixels import pixels_of

        if model not in self._classifiers:
            card = next(card for card in self._classifier_cards if card.name == model)
            self._classifiers[model] = ClassifierHeatMaps(card, self._device)
        classifier = self._classifiers[model]
        pixels = pixels_of(frame)
        return classifier.on_picture(classifier.of(classifier.batch(pixels), label), pixels)

    def _of_detector(self, frame: Frame) -> HeatMap:
        from models.heat_maps import DetectorHeatMaps
        from operators.frame_pixels import original_size, pixels_of
        from operators.letterbox import letterbox

        if self._detector is None:
            self._detector = DetectorHeatMaps(self._detector_card, self._device)
        image, (place,) = letterbox(
            [pixels_of(frame)], self._detector.input_size, [original_size(frame)]
        )
        found = self._detector.of(image)
        bottom, right = place.top + place.inner_height, place.left + place.inner_width
        return found[place.top : bottom, place.left : right]

    def _unknown(self, label: str, findings: Findings) -> Problem:
        scores = [name for card in self._classifier_cards for name in card.labels.values()]
        possible = sorted({*scores, *(each.label for each in findings.objects)})
        return Problem(
            422,
            "unknown-label",
            "There is no such label",
            f"'{label[:80]}' is no score, and no object of this kind was found in the image; "
            f"possible here: {', '.join(possible) or 'none'}",
            labels=possible,
        )


def _within(found: HeatMap, boxes: list[Box], frame: Frame) -> HeatMap:
    """The map inside of `boxes`, each with its own hottest place at 1."""
    import numpy as np

    from operators.frame_pixels import original_size

    height, width = original_size(frame)
    rows, columns = found.shape
    inside = np.zeros_like(found)
    for x1, y1, x2, y2 in boxes:
        left, right = int(x1 / width * columns), max(int(x2 / width * columns), 1)
        top, bottom = int(y1 / height * rows), max(int(y2 / height * rows), 1)
        part = found[top:bottom, left:right]
        if part.size:
            hottest = max(float(part.max()), 1e-6)
            target = inside[top:bottom, left:right]
            np.maximum(target, part / hottest, out=target)
    return inside


def _laid_over(picture: bytes, found: HeatMap) -> bytes:
    """A WebP of `picture` with the map in colours over it."""
    import cv2
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as opened:
        below = np.asarray(opened.convert("RGB"), np.float32)
    height, width = below.shape[:2]
    heat = cv2.resize(np.ascontiguousarray(found), (width, height), interpolation=cv2.INTER_LINEAR)
    # Inferno is even to the eye, in grey and to the colour-blind as well.
    colours = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[:, :, ::-1]
    cover = _STRONGEST * heat[:, :, None]
    grey = below.mean(axis=2, keepdims=True)
    mixed = (0.5 * below + 0.5 * grey) * (1 - cover) + colours * cover
    buffer = io.BytesIO()
    Image.fromarray(mixed.clip(0, 255).astype(np.uint8)).save(
        buffer, "WEBP", quality=_QUALITY, method=2
    )
    return buffer.getvalue()
