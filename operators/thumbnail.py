"""Small pictures that may leave the service: private places hidden, nothing but pixels inside.

Whoever shows a picture to people (the contact sheet, an HTTP interface) makes it here. The bytes
come from strangers, so the contained decoder reads them; what was found is made unrecognisable at
the size that is shown; and the file is written from those pixels alone, so that no Exif (with its
place, its camera and its own thumbnail of the untouched picture), no profile and no comment of the
original goes with it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from PIL import Image

from models.catalog import Catalog
from models.device import Device
from models.resizing import resized
from operators.decode import DecodeLimits, Isolation, make_decoder
from operators.findings import Box, Findings
from operators.frame import Failure, Frame, Origin
from operators.frame_pixels import original_size, pixels_of
from operators.least_size import LeastSize
from operators.obscure import Pixels, obscured, scaled
from operators.privacy_options import PrivacyOptions
from operators.private_places import PrivatePlaces

Encoding = Literal["webp", "jpeg"]

LARGEST = 1280
"""The longer side in pixels of the largest picture that is shown, unless said otherwise."""
SEARCHED_AT_LEAST = 640
"""Faces are looked for at this size even if less is shown: a few pixels more are found for sure."""
_QUALITY = 80
"""Pillow's default for WebP; of JPEG it is usual for small pictures."""
_AT_ONCE = 8
"""Pictures held decoded."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture that is to be shown.

    Attributes:
        content: the encoded bytes, as they came.
        findings: what was found in it when it was analysed; what they know is hidden as well.
        hidden: nothing of it may be recognised, as of a picture that was blocked.
    """

    content: bytes
    findings: Findings | None = None
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A file that may leave.

    Attributes:
        content: its bytes, WebP or JPEG, without metadata.
        width, height: in pixels.
        places: how many places in it were hidden.
    """

    content: bytes
    media_type: str
    width: int
    height: int
    places: int


@dataclass(frozen=True, slots=True)
class ThumbnailSet:
    """One picture in the sizes that were asked for; `width` and `height` are of the original."""

    width: int
    height: int
    thumbnails: tuple[Thumbnail, ...]


class ThumbnailMaker:
    """Makes thumbnails. One instance belongs to one thread; a maker serves all its pictures."""

    def __init__(
        self,
        options: PrivacyOptions,
        device: Device,
        catalog: Catalog,
        *,
        objects: Mapping[str, Any] | None = None,
        limits: DecodeLimits | None = None,
        largest: int = LARGEST,
        threads: int | None = None,
        isolation: Isolation = "process",
    ) -> None:
        """Load the detectors and start the processes that decode.

        Args:
            objects: options of the operator `objects`, whose labels `options` may name.
            largest: no thumbnail has a longer side of more pixels.

        Raises:
            OperatorError, models.ModelError: what must be hidden cannot be looked for.
        """
        self._options = options
        self._largest = largest
        side = max(largest, SEARCHED_AT_LEAST)
        self._places = PrivatePlaces(options, device, catalog, objects, side)
        self._decoder = make_decoder(
            device, limits or DecodeLimits(), threads, isolation, LeastSize(longer=side)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes and let go of the networks."""
        self._decoder.close()
        self._places.close()

    def make(
        self, pictures: Sequence[Shown], sizes: Sequence[int], encoding: Encoding = "webp"
    ) -> list[ThumbnailSet | Failure]:
        """Each picture in each size, or why it cannot be shown.

        Args:
            sizes: longer sides in pixels, none above `largest`. A smaller picture keeps its size.

        Raises:
            ValueError: a size is out of range.
        """
        for size in sizes:
            if not 1 <= size <= self._largest:
                raise ValueError(f"a thumbnail of {size} pixels: 1 to {self._largest} are possible")
        made: list[ThumbnailSet | Failure] = []
        for start in range(0, len(pictures), _AT_ONCE):
            made += self._made(pictures[start : start + _AT_ONCE], sizes, encoding)
        return made

    def _made(
        self, pictures: Sequence[Shown], sizes: Sequence[int], encoding: Encoding
    ) -> list[ThumbnailSet | Failure]:
        frames = [_frame(number, shown) for number, shown in enumerate(pictures)]
        self._decoder.decode(frames)
        living = [
            (frame, shown)
            for frame, shown in zip(frames, pictures, strict=True)
            if not frame.failed
        ]
        found = self._places.find(
            [frame for frame, _ in living], [shown.findings for _, shown in living]
        )
        places = {frame: own for (frame, _), own in zip(living, found, strict=True)}
        return [
            frame.failure or self._in_sizes(frame, shown, places[frame], sizes, encoding)
            for frame, shown in zip(frames, pictures, strict=True)
        ]

    def _in_sizes(
        self,
        frame: Frame,
        shown: Shown,
        places: Sequence[Box],
        sizes: Sequence[int],
        encoding: Encoding,
    ) -> ThumbnailSet:
        height, width = original_size(frame)
        thumbnails = []
        for size in sizes:
            scale = min(1.0, size / max(height, width))
            own_height, own_width = (max(1, round(side * scale)) for side in (height, width))
            small = resized(pixels_of(frame), own_height, own_width).permute(1, 2, 0)
            hidden = self._hidden(
                np.ascontiguousarray(small.cpu().numpy()),
                scaled(places, own_width / width, own_height / height),
                shown.hidden,
            )
            content = encoded(hidden, encoding)
            thumbnails.append(
                Thumbnail(content, f"image/{encoding}", own_width, own_height, len(places))
            )
        frame.pixels = None
        return ThumbnailSet(width, height, tuple(thumbnails))

    def _hidden(self, pixels: Pixels, places: Sequence[Box], whole: bool) -> Pixels:
        method, margin = self._options.method, self._options.margin
        if whole:
            height, width = pixels.shape[:2]
            return obscured(pixels, [(0, 0, width, height)], method)
        return obscured(pixels, places, method, margin)


def encoded(pixels: Pixels, encoding: Encoding) -> bytes:
    """A file that holds these pixels, uint8 RGB (height, width, 3), and no metadata at all."""
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels)
    if encoding == "webp":
        picture.save(buffer, "WEBP", quality=_QUALITY, method=2)
    else:
        picture.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()


def _frame(number: int, shown: Shown) -> Frame:
    origin = Origin("", 0, number, 0)
    return Frame(str(number), "", 0, origin, content=shown.content)
