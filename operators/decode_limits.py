"""What an image may cost before and while it is decoded.

Every limit is checked from the header, before memory is taken. The figures for memory are what
OpenCV and Pillow were seen to need at most (docs/decoding.md), so that a header that lies about
what follows runs into the limit of the process that decodes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from operators.image_facts import ImageHeader, Undecodable
from operators.image_header import MAX_FRAMES
from operators.least_size import reduced

MEBIBYTE = 1024 * 1024

Isolation = Literal["process", "thread"]
"""Where images are decoded."""

_PLAIN_JPEG_BYTES = 16
"""Bytes a pixel of an ordinary JPEG: 3 decoded, 6 of coefficients if it is progressive, 3 in shared
memory, 3 in the frame; rounded up."""
_COEFFICIENT_BYTES = 6
"""Bytes a pixel of the coefficients of a buffered JPEG without subsampling, of which a reduction
saves nothing."""
_OTHER_BYTES = 32
"""Bytes a pixel of anything else: Pillow's picture (4), its conversion with transparency (4), the
white below it (4), the result three times (9), and what codecs hold: up to 8 in WebP and AVIF."""


@dataclass(frozen=True)
class DecodeLimits:
    """What is refused before decoding, and how much decoding may take.

    Attributes:
        max_bytes: size of the encoded image. 32 MiB is more than a 50-megapixel camera JPEG.
        max_pixels: width times height. 80 megapixels take 240 MB as RGB.
        max_side: the longer side in pixels; guards against strips that no model can use.
        max_frames: pictures in one file. Only the first is decoded; a thousand are 40 s of video.
        max_memory: bytes that the images being decoded at once may need together, pixels included.
            An image that needs more is decoded alone, so the most that decoding takes is the larger
            of this and `largest_memory`.
        timeout: seconds that one image may take. 80 megapixels take 1 to 4 s. Kept in child
            processes only: a thread cannot be ended.
        truncated: `reject` refuses a file whose end is missing; `tolerate` decodes what is there,
            leaves the rest grey and says so in the findings.
    """

    max_bytes: int = 32 * MEBIBYTE
    max_pixels: int = 80_000_000
    max_side: int = 30_000
    max_frames: int = MAX_FRAMES
    max_memory: int = 1024 * MEBIBYTE
    timeout: float = 10.0
    truncated: Literal["reject", "tolerate"] = "reject"

    def check(self, header: ImageHeader) -> None:
        """Raise `Undecodable` if what `header` says is refused."""
        self.check_size(header.width, header.height)
        if header.frames > self.max_frames:
            raise Undecodable(
                "too-many-frames",
                f"the {header.format} claims or holds {header.frames} frames or more; "
                f"{self.max_frames} are allowed (max_frames)",
            )
        if header.truncated and self.truncated == "reject":
            raise Undecodable("truncated", header.truncated)

    def check_size(self, width: int, height: int) -> None:
        """Raise `Undecodable` if a picture of this size is too large."""
        if max(width, height) > self.max_side:
            raise Undecodable(
                "too-large-side",
                f"the picture is {width} x {height}; the longest side allowed is {self.max_side} "
                "pixels (max_side)",
            )
        if width * height > self.max_pixels:
            raise Undecodable(
                "too-many-pixels",
                f"the picture is {width} x {height}, which is more than {self.max_pixels} pixels "
                "(max_pixels)",
            )

    def memory(self, header: ImageHeader, reduction: int = 1) -> int:
        """Bytes that decoding this image may need; a size that only the decoder can tell counts as
        the largest allowed.

        Args:
            reduction: what its sides are divided by while it is decoded.
        """
        pixels = header.width * header.height or self.max_pixels
        if reduction == 1:
            return pixels * (_PLAIN_JPEG_BYTES if header.plain else _OTHER_BYTES)
        fewer = reduced(header.width, reduction) * reduced(header.height, reduction)
        coefficients = pixels * _COEFFICIENT_BYTES if header.buffered else 0
        return fewer * _PLAIN_JPEG_BYTES + coefficients

    @property
    def largest_memory(self) -> int:
        """Bytes that the costliest image allowed may need."""
        return self.max_pixels * _OTHER_BYTES
