"""Reads the headers of TIFF and AVIF, which are found by following offsets and nested boxes.

Hostile files make offsets lead in circles and boxes hold themselves, so directories are never
visited twice, boxes are followed to a fixed depth, and every step is counted. Sources of the
layouts: TIFF 6.0, the BigTIFF design, ISO/IEC 14496-12 and the AVIF specification 1.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from operators.image_facts import ImageHeader, Steps, Undecodable

_TIFF_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""TIFF field types that a width may have, as `struct` codes."""


def read_tiff(content: bytes, max_frames: int) -> ImageHeader:
    """Size from the first directory, frames from the chain of directories.

    Raises:
        Undecodable: the directories form a circle.
        struct.error: the first directory lies beyond the end of the file.
    """
    order = "<" if content[:2] == b"II" else ">"
    big = content[2:4] in (b"+\x00", b"\x00+")
    # Offsets, the number of entries, and the bytes of an entry.
    offset_code, count_code, entry_size = ("Q", "Q", 20) if big else ("I", "H", 12)
    (directory,) = struct.unpack_from(order + offset_code, content, 8 if big else 4)
    width, height = _tiff_size(content, directory, order, count_code, offset_code)
    seen: set[int] = set()
    while directory and len(seen) <= max_frames:
        if directory in seen:
            raise Undecodable(
                "corrupt", f"the TIFF's directories form a circle at byte {directory}"
            )
        try:
            (entries,) = struct.unpack_from(order + count_code, content, directory)
            seen.add(directory)
            after = directory + struct.calcsize(count_code) + entries * entry_size
            (directory,) = struct.unpack_from(order + offset_code, content, after)
        except (struct.error, OverflowError):
            # The end of the chain is missing; the first picture may be whole all the same.
            break
    return ImageHeader("tiff", width, height, frames=max(1, len(seen)))


def _tiff_size(
    content: bytes, directory: int, order: str, count_code: str, offset_code: str
) -> tuple[int, int]:
    if directory >= len(content):
        raise struct.error
    (entries,) = struct.unpack_from(order + count_code, content, directory)
    position = directory + struct.calcsize(count_code)
    size = {0x0100: 0, 0x0101: 0}
    for _ in range(min(entries, 4096)):
        tag, kind, count = struct.unpack_from(f"{order}HH{offset_code}", content, position)
        position += 4 + struct.calcsize(offset_code)
        if tag in size and count == 1 and kind in _TIFF_INTEGERS:
            (value,) = struct.unpack_from(order + _TIFF_INTEGERS[kind], content, position)
            # Of a tag that is given twice decoders take one or the other.
            size[tag] = max(size[tag], value)
        position += struct.calcsize(offset_code)
    return size[0x0100], size[0x0101]


_CONTAINERS = frozenset({b"meta", b"iprp", b"ipco", b"moov", b"trak", b"mdia", b"minf", b"stbl"})
_DEPTH = 8


def read_avif(content: bytes) -> ImageHeader:
    """The largest size that any picture in the file claims, frames from the tables of samples.

    Raises:
        Undecodable: it consists of too many boxes.
    """
    width = height = frames = 0
    truncated = ""
    for kind, start, end in _boxes(content, 0, len(content), _DEPTH, Steps("AVIF")):
        if end > len(content):
            truncated = f"the AVIF of {len(content)} bytes ends within its {kind!r} box"
        found = (0, 0)
        try:
            if kind == b"ispe":
                found = struct.unpack_from(">II", content, start + 4)
            elif kind == b"stsd":
                # The first entry's own header (8), then its fields up to the size (24).
                found = struct.unpack_from(">HH", content, start + 8 + 8 + 24)
            elif kind == b"stsz":
                (samples,) = struct.unpack_from(">I", content, start + 8)
                frames = max(frames, samples)
        except struct.error:
            continue
        if found[0] * found[1] > width * height:
            width, height = found
    return ImageHeader("avif", width, height, frames=max(1, frames), truncated=truncated)


def _boxes(
    content: bytes, position: int, stop: int, depth: int, steps: Steps
) -> Iterator[tuple[bytes, int, int]]:
    """Every box as (type, start of its payload, its claimed end), parents before children."""
    while position + 8 <= stop:
        steps.take()
        size, kind = struct.unpack_from(">I4s", content, position)
        start = position + 8
        if size == 1:
            if start + 8 > stop:
                return
            (size,) = struct.unpack_from(">Q", content, start)
            start += 8
        end = position + size if size else stop
        if end < start:
            return
        yield kind, start, end
        if kind in _CONTAINERS and depth:
            # `meta` begins with a version and flags.
            inner = start + 4 if kind == b"meta" else start
            yield from _boxes(content, inner, min(end, stop), depth - 1, steps)
        position = end
