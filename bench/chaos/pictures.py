"""Small pictures, each unlike every other, and files that are none.

A picture is made from its number alone, so producer, image server and account agree on it without
keeping thousands of files.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np

WIDTH, HEIGHT = 160, 120
BOMB_SIDE = 50_000


def jpeg(number: int) -> bytes:
    """Picture `number` as a JPEG of about 5 kB: coloured clouds under some shapes."""
    generator = np.random.default_rng(number)
    clouds = generator.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    picture = cv2.resize(clouds, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    for _ in range(6):
        (x1, y1, x2, y2) = (int(v) for v in generator.integers(0, WIDTH, 4))
        color = tuple(int(v) for v in generator.integers(0, 256, 3))
        if generator.random() < 0.5:
            cv2.rectangle(picture, (x1, y1), (x2, y2), color, -1)
        else:
            cv2.circle(picture, (x1, y1), x2 // 4 + 3, color, -1)
    done, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not done:
        raise RuntimeError("OpenCV cannot write JPEG")
    return encoded.tobytes()


def bomb() -> bytes:
    """A PNG of 1.1 kB that claims 50 000 x 50 000 pixels (7 GB decoded) and holds few of them."""
    header = struct.pack(">IIBBBBB", BOMB_SIDE, BOMB_SIDE, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20))
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", rows)
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def _cut_short(number: int) -> bytes:
    whole = jpeg(number)
    return whole[: len(whole) // 2]


def _without_tables(number: int) -> bytes:
    """A JPEG whose quantisation tables are overwritten."""
    whole = jpeg(number)
    return whole[:25] + random.Random(number).randbytes(200) + whole[225:]


def _torn_png(number: int) -> bytes:
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    noise = random.Random(number).randbytes(400)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", noise)
        + _chunk(b"IEND", b"")
    )


def _noise(number: int) -> bytes:
    return b"\xff\xd8\xff" + random.Random(number).randbytes(3000)


def _page(number: int) -> bytes:
    return f"<html><body>404: no picture {number}</body></html>".encode()


_MALFORMED: tuple[Callable[[int], bytes], ...] = (
    _cut_short,
    _without_tables,
    _torn_png,
    _noise,
    _page,
)


def malformed(number: int) -> bytes:
    """A file that cannot be decoded: cut short, torn, noise, or a web page, by turns."""
    return _MALFORMED[number % len(_MALFORMED)](number)
