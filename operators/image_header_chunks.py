"""Reads the headers of PNG, WebP, GIF and BMP: size, number of frames, and a missing end.

Frames are counted by stepping over chunks and blocks, never by decoding, and counting ends once
the limit is passed. Sources of the layouts: the PNG specification (third edition, which has APNG),
RFC 9649 (WebP), the GIF89a specification and Microsoft's description of BITMAPINFOHEADER.
"""

from __future__ import annotations

import struct

from operators.image_facts import ImageHeader, Steps, Undecodable


def read_png(content: bytes, max_frames: int) -> ImageHeader:
    """Size from IHDR, frames from acTL and the fcTL chunks, whichever claims more.

    Raises:
        Undecodable: it does not begin as a PNG must.
        struct.error, IndexError: the file ends within its header.
    """
    if content[12:16] != b"IHDR":
        if len(content) < 33:
            raise IndexError
        raise Undecodable("corrupt", "the PNG does not begin with its IHDR chunk")
    width, height = struct.unpack_from(">II", content, 16)
    if not width or not height:
        raise Undecodable("corrupt", f"the PNG claims a size of {width} x {height}")
    claimed = counted = 0
    position = 8
    steps = Steps("PNG")
    truncated = f"the PNG of {len(content)} bytes has no IEND chunk; fetch it again"
    while position + 8 <= len(content) and counted <= max_frames:
        steps.take()
        length, kind = struct.unpack_from(">I4s", content, position)
        if kind == b"IEND":
            truncated = ""
            break
        if kind == b"fcTL":
            counted += 1
        elif kind == b"acTL" and length >= 4 and position + 12 <= len(content):
            (claimed,) = struct.unpack_from(">I", content, position + 8)
        position += 12 + length
    return ImageHeader("png", width, height, frames=max(1, claimed, counted), truncated=truncated)


def read_webp(content: bytes, max_frames: int) -> ImageHeader:
    """Size from the first chunk, frames from the ANMF chunks.

    Raises:
        Undecodable: it does not begin as a WebP must.
        struct.error, IndexError: the file ends within its header.
    """
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
    truncated = ""
    if size + 8 > len(content):
        truncated = f"the WebP has {len(content)} of the {size + 8} bytes it claims"
    frames = 0
    position = 12
    steps = Steps("WebP")
    while kind == b"VP8X" and position + 8 <= len(content) and frames <= max_frames:
        steps.take()
        name, length = struct.unpack_from("<4sI", content, position)
        frames += name == b"ANMF"
        position += 8 + length + (length & 1)
    return ImageHeader("webp", width, height, frames=max(1, frames), truncated=truncated)


def read_gif(content: bytes, max_frames: int) -> ImageHeader:
    """The logical screen, grown to hold the first picture as decoders do, and the pictures.

    Raises:
        Undecodable: it consists of too many blocks.
        struct.error, IndexError: the file ends before its first picture's data.
    """
    width, height, flags = struct.unpack_from("<HHB", content, 6)
    position = 13 + _color_table(flags)
    frames = 0
    truncated = ""
    steps = Steps("GIF")
    while frames <= max_frames:
        steps.take()
        if position >= len(content):
            if not frames:
                raise IndexError
            break
        introducer = content[position]
        position += 1
        if introducer == 0x3B:
            break
        if introducer == 0x2C:
            if frames == 0:
                left, top, wide, high = struct.unpack_from("<HHHH", content, position)
                width, height = max(width, left + wide), max(height, top + high)
            if position + 9 > len(content):
                break
            frames += 1
            # The descriptor, the picture's own colours, the size of the first code.
            position += 9 + _color_table(content[position + 8]) + 1
        elif introducer == 0x21:
            position += 1
        else:
            # Decoders look for the next block; so does this.
            continue
        position = _after_blocks(content, position, steps)
        if position > len(content) and frames <= 1:
            truncated = f"the GIF of {len(content)} bytes ends within its first picture"
    return ImageHeader("gif", width, height, frames=max(1, frames), truncated=truncated)


def _color_table(flags: int) -> int:
    """Bytes of a colour table, 0 if there is none."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(content: bytes, position: int, steps: Steps) -> int:
    """Where a chain of data blocks ends; beyond the content if it does not."""
    while position < len(content):
        steps.take()
        length = content[position]
        position += 1 + length
        if not length:
            return position
    return len(content) + 1


def read_bmp(content: bytes) -> ImageHeader:
    """The size in the second header.

    Raises:
        Undecodable: the size is none.
        struct.error: the file ends within its headers.
    """
    (header,) = struct.unpack_from("<I", content, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", content, 18)
    if width <= 0 or height == 0:
        raise Undecodable("corrupt", f"the BMP claims a size of {width} x {height}")
    # A negative height says that the rows are stored from the top.
    return ImageHeader("bmp", width, abs(height))
