"""What can be known of an encoded image before it is decoded, and why one may be refused.

These few types are shared by the readers of headers, by the decoders and by the processes that
decode, so they import nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Format = Literal["jpeg", "png", "webp", "gif", "bmp", "tiff", "avif"]

DECODE_REASONS = (
    "empty",
    "too-many-bytes",
    "not-an-image",
    "unsupported-format",
    "too-many-pixels",
    "too-large-side",
    "too-many-frames",
    "truncated",
    "corrupt",
    "out-of-memory",
    "timeout",
    "decoder-crash",
)
"""The stable codes that a frame can fail to decode with."""

MAX_STEPS = 250_000
"""Blocks, chunks or segments that a reader of headers steps over in one file before it gives up.

32 MiB of GIF in full blocks are 132 000; at some 0.2 µs a step a hostile file costs 50 ms."""


class Undecodable(Exception):  # noqa: N818 - a statement about the image, not a fault of ours
    """An image that cannot be decoded: `reason` is one of `DECODE_REASONS`, `detail` a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the file says of itself, found without decoding.

    Attributes:
        format: recognised from the content.
        width, height: pixels as stored, before orientation; 0 where only the decoder can tell
            (a TIFF or AVIF in an unusual layout, a JPEG that gives its height after the picture).
        plain: an 8-bit grey or YCbCr/RGB JPEG in a coding process that every JPEG decoder knows.
        orientation: the Exif orientation of a JPEG, 1 to 8; 1 for every other format.
        frames: pictures in the file, at least 1. Counting ends soon after the limit it was given.
        buffered: decoding holds the coefficients of the whole JPEG at once, because they come in
            several scans, as in every progressive one.
        truncated: what shows that the end of the file is missing, in words; empty if nothing does.
    """

    format: Format
    width: int = 0
    height: int = 0
    plain: bool = False
    orientation: int = 1
    frames: int = 1
    buffered: bool = False
    truncated: str = ""

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) once the orientation is applied."""
        turned = self.orientation >= 5
        return (self.height, self.width) if turned else (self.width, self.height)


class Steps:
    """Counts the steps through one file, so that no file can keep its reader busy for long."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._left = MAX_STEPS

    def take(self) -> None:
        """One step.

        Raises:
            Undecodable: there were too many.
        """
        self._left -= 1
        if self._left < 0:
            raise Undecodable(
                "corrupt",
                f"the {self._kind} consists of more than {MAX_STEPS} parts; no encoder writes that",
            )
