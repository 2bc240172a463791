"""Reads the header of a JPEG: size, coding process, orientation, and whether its end is there.

Sources of the layouts: ITU-T T.81 (JPEG) and Exif 2.32. Whatever the bytes are, the work is small:
runs of fill bytes and the search for markers are left to compiled code, segments are counted.
"""

from __future__ import annotations

import re
import struct

import numpy as np

from operators.image_facts import ImageHeader, Steps, Undecodable

MAX_SCANS = 500
"""Scans of one JPEG. Encoders write up to about 10; thousands over a large picture in a small file
keep a decoder busy for minutes ("Two Issues with the JPEG Standard", libjpeg-turbo, which
advises decoders to refuse 500 and more)."""

MAX_SCANNED_PIXELS = 1_200_000_000
"""Pixels times scans: 15 scans over the 80 megapixels allowed by default. Each scan passes over the
whole picture, however few bytes it has: a file of 695 bytes with so many took 6 s."""

_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = 0xC2
_COMMON_PROCESSES = frozenset({0xC0, 0xC1, _PROGRESSIVE})
"""Baseline, extended sequential and progressive, with Huffman coding."""
_NO_FILL = re.compile(rb"[^\xff]")


def read_jpeg(content: bytes) -> ImageHeader:
    """Walk the segments up to the first scan, then make sure that the scan has an end.

    libjpeg fills what a truncated file lacks with grey and only warns, so a missing end-of-image
    marker is the sign to go by. Within entropy-coded data 0xFF is always followed by 0x00 or a
    restart marker, so a marker found after the first scan header is a real one.

    Raises:
        Undecodable: the markers make no sense.
        struct.error, IndexError: the file ends before its first scan.
    """
    position, orientation = 2, 1
    width = height = components = precision = process = 0
    steps = Steps("JPEG")
    while True:
        steps.take()
        if content[position] != 0xFF:
            raise Undecodable(
                "corrupt", f"the JPEG has no marker at byte {position}, where one must be"
            )
        found = _NO_FILL.search(content, position)
        if found is None:
            raise IndexError
        position = found.start()
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
            orientation = exif_orientation(content[position + 8 : position + length])
        position += length
        if marker == 0xDA:
            break
    if not process or not width:
        raise Undecodable("corrupt", "the JPEG has a scan but no frame header with a size")
    in_first_scan = content[position - length + 2]
    scans = 1 + _count_scans(content, position)
    if scans > MAX_SCANS or scans * width * height > MAX_SCANNED_PIXELS:
        raise Undecodable(
            "corrupt",
            f"the JPEG of {width} x {height} has {scans} scans, which would take very long to "
            "decode; encoders write about 10",
        )
    truncated = ""
    # From the end, where it is found at once.
    if content.rfind(b"\xff\xd9", position) < 0:
        truncated = f"the JPEG of {len(content)} bytes has no end-of-image marker; fetch it again"
    plain = process in _COMMON_PROCESSES and precision == 8 and components in (1, 3) and height > 0
    return ImageHeader(
        "jpeg",
        width,
        height,
        plain,
        orientation,
        # As libjpeg decides it: the first scan is not the only one.
        buffered=process == _PROGRESSIVE or in_first_scan < components,
        truncated=truncated,
    )


def _count_scans(content: bytes, position: int) -> int:
    """Scan headers from `position` on. Compressed data are full of 0xFF, which makes `bytes.count`
    eight times slower than this."""
    values = np.frombuffer(content, np.uint8)[position:]
    return int(np.count_nonzero((values[:-1] == 0xFF) & (values[1:] == 0xDA)))


def exif_orientation(exif: bytes) -> int:
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
