"""Recognise an encoded image from its first bytes, and learn its size before decoding it.

The name and the declared content type of an image are never believed. Sizes and the number of
frames are read from the header, because a few kilobytes can claim gigabytes of pixels: what is too
large is refused before any memory is taken for it. Readers do bounded work on any bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from operators.image_facts import DECODE_REASONS, Format, ImageHeader, Undecodable
from operators.image_header_boxes import read_avif, read_tiff
from operators.image_header_chunks import read_bmp, read_gif, read_png, read_webp
from operators.image_header_jpeg import read_jpeg

__all__ = ["DECODE_REASONS", "Format", "ImageHeader", "Undecodable", "read_header", "recognise"]

MAX_FRAMES = 1000
"""Frames counted by default before counting ends."""

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


def read_header(content: bytes, max_frames: int = MAX_FRAMES) -> ImageHeader:
    """Recognise `content`, read its size and count its frames up to a little over `max_frames`.

    Raises:
        Undecodable: it is no image, one of an unsupported format, damaged, or ends within its
            header. An image whose picture data end too early is told by `ImageHeader.truncated`.
    """
    kind = recognise(content)
    try:
        match kind:
            case "jpeg":
                return read_jpeg(content)
            case "png":
                return read_png(content, max_frames)
            case "webp":
                return read_webp(content, max_frames)
            case "gif":
                return read_gif(content, max_frames)
            case "bmp":
                return read_bmp(content)
            case "tiff":
                return read_tiff(content, max_frames)
            case "avif":
                return read_avif(content)
    except (struct.error, IndexError, OverflowError) as error:
        raise Undecodable(
            "truncated", f"the {kind} image ends within its header, after {len(content)} bytes"
        ) from error


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
