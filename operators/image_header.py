"""Recognise an encoded image from its first bytes, and learn its size before decoding it.

The name and the declared content type of an image are never believed. Sizes are read from the
header, because a few kilobytes can claim gigabytes of pixels: what is too large is refused before
any memory is taken for it. Sources of the layouts: ITU-T T.81 (JPEG), Exif 2.32, the PNG
specification, RFC 9649 (WebP) and ISO/IEC 14496-12 (`ftyp` boxes).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
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
    "truncated",
    "corrupt",
)
"""The stable codes that a frame can fail to decode with."""


class Undecodable(Exception):  # noqa: N818 - a statement about the image, not a fault of ours
    """An image that cannot be decoded: `reason` is one of `DECODE_REASONS`, `detail` a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the first bytes say.

    Attributes:
        format: recognised from the content.
        width, height: pixels as stored, before orientation; 0 where only the decoder can tell
            (GIF, BMP, TIFF, AVIF, whose decoders read them without decoding).
        plain: an 8-bit grey or YCbCr/RGB JPEG in a coding process that every JPEG decoder knows.
        orientation: the Exif orientation of a JPEG, 1 to 8; 1 for every other format.
    """

    format: Format
    width: int = 0
    height: int = 0
    plain: bool = False
    orientation: int = 1


_SIGNATURES: tuple[tuple[bytes, Format], ...] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
)
_KNOWN_BUT_UNSUPPORTED: tuple[tuple[bytes, str], ...] = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "Photoshop"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"%PDF", "PDF"),
    (b"v/1\x01", "OpenEXR"),
    (b"\x1aE\xdf\xa3", "Matroska video"),
)
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
"""Sizes of the known second headers; "BM" alone begins many a text."""
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"})
_SUPPORTED = "send JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"


def read_header(content: bytes) -> ImageHeader:
    """Recognise `content` and read its size.

    Raises:
        Undecodable: it is no image, one of an unsupported format, or ends within its header.
    """
    kind = recognise(content)
    try:
        if kind == "jpeg":
            return _jpeg(content)
        if kind == "png":
            return _png(content)
        if kind == "webp":
            return _webp(content)
    except (struct.error, IndexError) as error:
        raise Undecodable(
            "truncated", f"the {kind} image ends within its header, after {len(content)} bytes"
        ) from error
    return ImageHeader(kind)


def recognise(content: bytes) -> Format:
    """The container format of `content`.

    Raises:
        Undecodable: with reason `not-an-image` or `unsupported-format`.
    """
    for signature, kind in _SIGNATURES:
        if content.startswith(signature):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    if content[:2] == b"BM" and (len(content) < 18 or content[14] in _BMP_HEADERS):
        return "bmp"
    brands = set(_brands(content))
    if brands & _AVIF_BRANDS:
        return "avif"
    if brands:
        name = "HEIF" if brands & _HEIF_BRANDS else "a video or another ISO media file"
        raise Undecodable("unsupported-format", f"the content is {name}; {_SUPPORTED}")
    for signature, name in _KNOWN_BUT_UNSUPPORTED:
        if content.startswith(signature):
            raise Undecodable("unsupported-format", f"the content is {name}; {_SUPPORTED}")
    start = content[:256].lstrip().lower()
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in content[:1024]):
        raise Undecodable("unsupported-format", f"the content is SVG; {_SUPPORTED}")
    raise Undecodable(
        "not-an-image",
        f"the content begins with {content[:12]!r}, which no image format does; {_SUPPORTED}",
    )


def _brands(content: bytes) -> Iterator[bytes]:
    if content[4:8] != b"ftyp" or len(content) < 16:
        return
    size = min(int.from_bytes(content[:4], "big"), len(content), 256)
    yield content[8:12]
    for start in range(16, size - 3, 4):
        yield content[start : start + 4]


_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_COMMON_PROCESSES = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended sequential and progressive, with Huffman coding."""


def _jpeg(content: bytes) -> ImageHeader:
    """Walk the segments up to the first scan, then make sure that the scan has an end.

    libjpeg fills what a truncated file lacks with grey and only warns, so a missing end-of-image
    marker is the sign to go by. Within entropy-coded data 0xFF is always followed by 0x00 or a
    restart marker, so a marker found after the first scan header is a real one.
    """
    position, orientation = 2, 1
    width = height = components = precision = process = 0
    while True:
        if content[position] != 0xFF:
            raise Undecodable(
                "corrupt", f"the JPEG has no marker at byte {position}, where one must be"
            )
        while content[position] == 0xFF:
            position += 1
        marker = content[position]
        position += 1
        if marker in _STANDALONE:
            continue
        if marker == 0xD9:
            raise Undecodable("truncated", "the JPEG ends before any picture data")
        (length,) = struct.unpack_from(">H", content, position)
        if length < 2:
            raise Undecodable("corrupt", f"the JPEG has a segment of length {length}")
        if marker in _FRAME_HEADERS:
            precision, height, width, components = struct.unpack_from(
                ">BHHB", content, position + 2
            )
            process = marker
        elif marker == 0xE1 and content[position + 2 : position + 8] == b"Exif\x00\x00":
            orientation = _exif_orientation(content[position + 8 : position + length])
        position += length
        if marker == 0xDA:
            break
    if not process or not width:
        raise Undecodable("corrupt", "the JPEG has a scan but no frame header with a size")
    if content.find(b"\xff\xd9", position) < 0:
        raise Undecodable(
            "truncated",
            f"the JPEG of {len(content)} bytes has no end-of-image marker; fetch it again",
        )
    plain = process in _COMMON_PROCESSES and precision == 8 and components in (1, 3) and height > 0
    return ImageHeader("jpeg", width, height, plain, orientation)


def _exif_orientation(exif: bytes) -> int:
    """The orientation in an Exif block's first directory; 1 when there is none or it is odd."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, directory)
        for entry in range(min(entries, 512)):
            tag, kind, count = struct.unpack_from(f"{order}HHI", exif, directory + 2 + 12 * entry)
            if tag == 0x0112 and kind == 3 and count == 1:
                (value,) = struct.unpack_from(f"{order}H", exif, directory + 10 + 12 * entry)
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        # A damaged Exif block does not make the picture any less readable.
        return 1
    return 1


def _png(content: bytes) -> ImageHeader:
    if content[12:16] != b"IHDR":
        if len(content) < 33:
            raise IndexError
        raise Undecodable("corrupt", "the PNG does not begin with its IHDR chunk")
    width, height = struct.unpack_from(">II", content, 16)
    if not width or not height:
        raise Undecodable("corrupt", f"the PNG claims a size of {width} x {height}")
    return ImageHeader("png", width, height)


def _webp(content: bytes) -> ImageHeader:
    kind = content[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(content[24:27], "little") + 1
        height = int.from_bytes(content[27:30], "little") + 1
        _ = content[29]
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 26))
    elif len(content) < 16:
        raise IndexError
    else:
        raise Undecodable("corrupt", f"the WebP begins with an unknown chunk {kind!r}")
    (size,) = struct.unpack_from("<I", content, 4)
    if size + 8 > len(content):
        raise Undecodable(
            "truncated", f"the WebP has {len(content)} of the {size + 8} bytes it claims"
        )
    return ImageHeader("webp", width, height)
