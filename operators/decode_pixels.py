"""Decode one image: libjpeg-turbo for ordinary JPEGs, Pillow for everything else.

libjpeg-turbo decodes a JPEG of 1920 x 1080 in less than half the time that Pillow takes, at a
fraction of its size if that is enough, and straight into memory that it is given. It is called
through simplejpeg; what simplejpeg refuses, OpenCV tries, which is patient with odd layouts. This
module is what runs in the child processes, so it must not import torch.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import AvifImagePlugin, ExifTags, Image, ImageFile

from operators.decode_limits import DecodeLimits
from operators.image_facts import ImageHeader, Undecodable
from operators.least_size import reduced

Pixels = NDArray[np.uint8]

_ORDINARY_JPEG = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION

_REDUCED_JPEG = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
"""What says so to OpenCV, whose flags for grey are those for any colours."""

_UPRIGHT: dict[int, Callable[[Pixels], Any]] = {
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.rotate(cv2.transpose(image), cv2.ROTATE_180),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
"""What brings a picture of each Exif orientation upright (Exif 2.32, tag 0x0112)."""

_GREY: dict[str, int | tuple[int, ...]] = {
    "L": 128,
    "RGB": (128, 128, 128),
    "RGBX": (128, 128, 128, 255),
    "RGBA": (128, 128, 128, 255),
    "LA": (128, 255),
}
"""What a truncated picture shows where nothing was decoded; other modes stay at their zero."""


_STRIP_PIXELS = 1_000_000


class Decoded(NamedTuple):
    """`pixels`: uint8 of shape (height, width, 3), RGB, upright. `truncated`: a part is missing and
    was left grey."""

    pixels: Pixels
    truncated: bool = False


class _Tolerance(threading.local):
    """Stands for Pillow's `LOAD_TRUNCATED_IMAGES`, which is one switch for the whole process: here
    each thread has its own, so that decoders with different policies do not mix."""

    on = False

    def __bool__(self) -> bool:
        return self.on


_tolerance = _Tolerance()


@contextmanager
def _tolerating(tolerate: bool) -> Iterator[None]:
    ImageFile.LOAD_TRUNCATED_IMAGES = _tolerance  # type: ignore[assignment]
    _tolerance.on = tolerate
    try:
        yield
    finally:
        _tolerance.on = False


def prepare() -> None:
    """Quiet the libraries and load Pillow's plugins; once in each process that decodes.

    Failures are recorded with their frames. What OpenCV and Pillow print besides names no frame,
    and most of it is about damaged metadata, which does no harm.
    """
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # Images are decoded side by side; threads within one image would only get in each other's way.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    Image.init()


def decode_pixels(
    content: bytes,
    header: ImageHeader,
    limits: DecodeLimits,
    reduction: int = 1,
    room: Pixels | None = None,
) -> Decoded:
    """Decode one image that was screened.

    Args:
        reduction: what the sides of an ordinary JPEG are divided by, rounded up; 1, 2, 4 or 8.
        room: memory, in one dimension, from whose beginning on the pixels may be written. Pixels
            that share memory with it lie there.

    Raises:
        Undecodable: it is damaged, or too large after all.
        MemoryError: there is no memory for it.
    """
    if header.plain and not header.truncated:
        if header.orientation != 1:
            return Decoded(upright(_decode_jpeg(content, header, reduction), header.orientation))
        return Decoded(_decode_jpeg(content, header, reduction, room))
    if header.truncated:
        return Decoded(_decode_with_pillow(content, header, limits, tolerate=True), truncated=True)
    try:
        return Decoded(_decode_with_pillow(content, header, limits))
    except Undecodable as problem:
        if problem.reason != "truncated" or limits.truncated == "reject":
            raise
    return Decoded(_decode_with_pillow(content, header, limits, tolerate=True), truncated=True)


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an Exif orientation (1 to 8) to an image of shape (height, width, 3)."""
    turn = _UPRIGHT.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(turn(pixels), dtype=np.uint8)


def _decode_jpeg(
    content: bytes, header: ImageHeader, reduction: int, room: Pixels | None = None
) -> Pixels:
    height, width = reduced(header.height, reduction), reduced(header.width, reduction)
    size = height * width * 3
    if room is None or room.size < size:
        room = np.empty(size, np.uint8)
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(
            content,
            # The smallest picture that has this size is that of the reduction.
            min_height=height if reduction > 1 else 0,
            min_width=width if reduction > 1 else 0,
            buffer=room[:size],
            strict=False,
        )
    except ValueError:
        return _decode_jpeg_with_opencv(content, reduction)
    return pixels


def _decode_jpeg_with_opencv(content: bytes, reduction: int) -> Pixels:
    """Slower than simplejpeg, but not put off by unusual subsampling, and it can tell a lack of
    memory from damage."""
    try:
        pixels = cv2.imdecode(
            np.frombuffer(content, np.uint8), _ORDINARY_JPEG | _REDUCED_JPEG[reduction]
        )
    except cv2.error as error:
        if error.code == cv2.Error.STS_NO_MEM:
            raise MemoryError from error
        raise Undecodable("corrupt", f"the JPEG cannot be decoded: {error}") from error
    if pixels is None:
        raise Undecodable("corrupt", "the JPEG cannot be decoded; its picture data are damaged")
    return np.asarray(pixels, dtype=np.uint8)


def _decode_with_pillow(
    content: bytes, header: ImageHeader, limits: DecodeLimits, tolerate: bool = False
) -> Pixels:
    kind = header.format
    try:
        with (
            _tolerating(tolerate),
            Image.open(io.BytesIO(content), formats=(kind.upper(),)) as picture,
        ):
            limits.check_size(*picture.size)
            if tolerate and picture.mode in _GREY:
                picture.im = Image.new(picture.mode, picture.size, _GREY[picture.mode]).im
            picture.load()
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
            return upright(to_rgb(picture), orientation)
    except (Undecodable, MemoryError):
        raise
    except Exception as error:
        # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, EOFError and more
        # for damaged files; whichever it is, this image is the cause and only this image fails.
        raise _explain(content, kind, error) from error


def _explain(content: bytes, kind: str, error: Exception) -> Undecodable:
    said = str(error) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        return Undecodable("too-many-pixels", f"the {kind} is refused by Pillow: {said}")
    if isinstance(error, EOFError) or "truncated" in said.lower():
        return Undecodable("truncated", f"the {kind} of {len(content)} bytes is cut short: {said}")
    return Undecodable("corrupt", f"the {kind} cannot be decoded: {said}")


def to_rgb(picture: Image.Image) -> Pixels:
    """Any Pillow image as uint8 of shape (height, width, 3).

    Transparency is laid on white. 16-bit values are divided by 257 and rounded, except in 16-bit
    colour, of which Pillow keeps the high byte. 32-bit integers are taken as 8 or 16 bits wide if
    their largest value allows it. Floating-point values from 0 to 1 span the whole range; with
    any others the picture's own smallest and largest value do.

    Raises:
        Undecodable: the colour space cannot be converted.
    """
    mode = picture.mode
    if mode == "RGB" and "transparency" not in picture.info:
        return np.array(picture)
    if mode.startswith("I") or mode == "F":
        grey = _eight_bits(np.asarray(picture))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.has_transparency_data:
        picture = picture.convert("LA") if mode == "La" else picture
        transparent = picture.convert("RGBA")
        white = Image.new("RGB", picture.size, (255, 255, 255))
        white.paste(transparent, mask=transparent.getchannel("A"))
        return np.array(white)
    try:
        return np.array(picture.convert("RGB"))
    except ValueError as error:
        raise Undecodable(
            "unsupported-format", f"the picture's colour space {mode} cannot be turned into RGB"
        ) from error


def _eight_bits(values: NDArray[Any]) -> Pixels:
    """Grey values of any type as uint8. Works in strips, so that wide intermediate values never
    take several times the picture's own memory."""
    bits = np.empty(values.shape, np.uint8)
    rows = max(1, _STRIP_PIXELS // max(1, values.shape[1]))
    strips = [slice(start, start + rows) for start in range(0, values.shape[0], rows)]
    if values.dtype.kind == "f":
        low = min(float(_finite(values[strip]).min()) for strip in strips)
        high = max(float(_finite(values[strip]).max()) for strip in strips)
        if low >= 0.0 and high <= 1.0:
            low, high = 0.0, 1.0
        scale = 255.0 / max(high - low, 1e-12)
        for strip in strips:
            bits[strip] = np.rint((_finite(values[strip]) - low) * scale)
        return bits
    largest = int(values.max())
    if values.dtype.itemsize > 2 and largest <= 255:
        full = 255
    else:
        full = 65535 if largest <= 65535 else 2**32 - 1
    for strip in strips:
        wide = values[strip].astype(np.int64).clip(min=0)
        bits[strip] = (wide * 255 + full // 2) // full
    return bits


def _finite(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
