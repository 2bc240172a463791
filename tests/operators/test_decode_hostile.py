"""Images made to exhaust, mislead or stall their reader are refused in a moment, and alone."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from skimage import data

from models.device import Device
from operators.decode import DecodeLimits, Decoder, make_decoder
from operators.decode_contained import ContainedDecoder
from operators.decode_limits import MEBIBYTE
from operators.frame import Frame, Origin
from operators.image_header import read_header

CPU = Device(torch.device("cpu"), torch.float32)
SCREENING_SECONDS = 2.0
"""Of this process's own time. Far more than screening takes (50 ms at most), far less than decoding
the bombs would."""


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    made = make_decoder(CPU, DecodeLimits(timeout=20), threads=2)
    yield made
    made.close()


@pytest.fixture(scope="module", params=["process", "thread"])
def tolerant(request: pytest.FixtureRequest) -> Iterator[Decoder]:
    limits = DecodeLimits(truncated="tolerate")
    made = make_decoder(CPU, limits, threads=2, isolation=request.param)
    yield made
    made.close()


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(data.astronaut()).resize((300, 200))


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(decoder: Decoder, *contents: bytes) -> list[Frame]:
    frames = [Frame("id", "feed", 0, Origin("t", 0, 0, 0), content=item) for item in contents]
    decoder.decode(frames)
    return frames


def reason(frame: Frame) -> str:
    return "" if frame.failure is None else frame.failure.reason


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, *chunks: bytes, bits: int = 8, color: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    """`count` zero bytes, deflated, made without holding them."""
    deflate = zlib.compressobj(9)
    block = bytes(MEBIBYTE)
    parts = [deflate.compress(block) for _ in range(count // MEBIBYTE)]
    parts.append(deflate.compress(bytes(count % MEBIBYTE)))
    return b"".join(parts) + deflate.flush()


def png_bomb() -> bytes:
    """50 000 x 50 000 pixels in 300 kB: 7.5 GB as RGB."""
    return png(50_000, 50_000, chunk(b"IDAT", zeros(50_000 * 6_251)), bits=1, color=0)


def gif_of_frames(count: int) -> bytes:
    picture = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    return screen + picture * count + b"\x3b"


def gif_of_tiny_blocks(count: int) -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0)
    return screen + b"\x21\xfe" + b"\x01a" * count + b"\x00\x3b"


def apng_claiming(frames: int) -> bytes:
    return png(
        1, 1, chunk(b"acTL", struct.pack(">II", frames, 0)), chunk(b"IDAT", zlib.compress(bytes(4)))
    )


def apng_of_frames(count: int) -> bytes:
    control = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 1, 1, 0, 0, 1, 10, 0, 0))
    return png(1, 1, control * count, chunk(b"IDAT", zlib.compress(bytes(4))))


def webp_of_frames(count: int) -> bytes:
    one = encode(Image.new("RGB", (1, 1)), "webp", lossless=True)[12:]
    animated = b"ANMF" + struct.pack("<I", 16 + len(one)) + bytes(16) + one
    body = b"VP8X" + struct.pack("<I", 10) + b"\x02" + bytes(9)
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6) + animated * count
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def tiff(*directories: tuple[list[tuple[int, int, int]], int]) -> bytes:
    """A TIFF whose directories hold (tag, type, value) and the offset of the next, as given."""
    parts = [b"II*\x00", struct.pack("<I", 8)]
    for entries, following in directories:
        parts.append(struct.pack("<H", len(entries)))
        parts.extend(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
        parts.append(struct.pack("<I", following))
    return b"".join(parts)


def tiff_of_pages(count: int) -> bytes:
    return tiff(*[([(256, 4, 1)], 8 + 18 * (page + 1)) for page in range(count)], ([], 0))


def jpeg_with_scans(count: int, side: int = 64) -> bytes:
    content = bytearray(encode(Image.new("RGB", (64, 64)), "jpeg", progressive=True))
    place = content.index(b"\xff\xc2") + 5
    content[place : place + 4] = struct.pack(">HH", side, side)
    last = content.rindex(b"\xff\xda")
    return bytes(content[:last] + content[last:-2] * count + b"\xff\xd9")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (png_bomb, "too-large-side"),
        (lambda: gif_of_frames(100_000), "too-many-frames"),
        (lambda: gif_of_tiny_blocks(10_000_000), "corrupt"),
        (lambda: apng_claiming(2**31 - 1), "too-many-frames"),
        (lambda: apng_of_frames(50_000), "too-many-frames"),
        (lambda: webp_of_frames(50_000), "too-many-frames"),
        (lambda: tiff_of_pages(100_000), "too-many-frames"),
        (lambda: tiff(([(256, 4, 9), (257, 4, 9)], 8)), "corrupt"),
        (lambda: tiff(([(256, 4, 9)], 26), ([(256, 4, 9)], 8)), "corrupt"),
        (lambda: tiff(([(256, 4, 2**32 - 1), (257, 4, 2**32 - 1)], 0)), "too-large-side"),
        (lambda: jpeg_with_scans(5_000), "corrupt"),
        (lambda: jpeg_with_scans(100, side=8_000), "corrupt"),
        (lambda: b"\xff\xd8\xff" + b"\xff" * 30_000_000, "truncated"),
        (lambda: b"\xff\xd8" + b"\xff\xe5\x00\x02" * 7_000_000, "corrupt"),
        (lambda: png(9, 9, chunk(b"tEXt", b"") * 2_000_000), "corrupt"),
    ],
    ids=[
        "png-bomb",
        "gif-of-100000-frames",
        "gif-of-tiny-blocks",
        "apng-claims-frames",
        "apng-of-frames",
        "webp-of-frames",
        "tiff-of-pages",
        "tiff-directory-follows-itself",
        "tiff-directories-in-a-circle",
        "tiff-claims-everything",
        "jpeg-of-5000-scans",
        "large-jpeg-of-100-scans",
        "jpeg-of-fill-bytes",
        "jpeg-of-empty-segments",
        "png-of-empty-chunks",
    ],
)
def test_a_bomb_is_refused_without_being_decoded(
    decoder: Decoder, photo: Image.Image, make: Callable[[], bytes], expected: str
) -> None:
    bomb = make()
    assert len(bomb) <= DecodeLimits().max_bytes
    started = time.process_time()
    frames = decode(decoder, encode(photo, "png"), bomb, encode(photo, "png"))
    assert time.process_time() - started < SCREENING_SECONDS
    assert [reason(frame) for frame in frames] == ["", expected, ""]


@pytest.mark.parametrize("kind", ["gif", "png", "webp", "avif", "tiff"])
def test_animations_and_pages_count_against_the_limit(photo: Image.Image, kind: str) -> None:
    others = [photo.rotate(angle) for angle in (90, 180)]
    content = encode(photo, kind, save_all=True, append_images=others)
    assert read_header(content).frames == 3
    for allowed, expected in ((3, ""), (2, "too-many-frames")):
        decoder = make_decoder(CPU, DecodeLimits(max_frames=allowed), threads=1, isolation="thread")
        (frame,) = decode(decoder, content)
        decoder.close()
        assert reason(frame) == expected


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif", "bmp", "tiff", "avif"])
def test_the_size_of_every_format_is_known_before_decoding(photo: Image.Image, kind: str) -> None:
    header = read_header(encode(photo, kind))
    assert (header.width, header.height, header.frames) == (300, 200, 1)
    assert not header.truncated


def test_a_gif_whose_picture_exceeds_its_screen_is_measured_by_the_picture(
    decoder: Decoder,
) -> None:
    content = bytearray(gif_of_frames(1))
    place = content.index(b"\x2c") + 5
    content[place : place + 4] = struct.pack("<HH", 65_000, 65_000)
    assert reason(decode(decoder, bytes(content))[0]) == "too-large-side"


def lying_webp() -> bytes:
    """A canvas of 16 x 16 over a picture of 4000 x 4000."""
    big = encode(Image.new("RGB", (4000, 4000)), "webp", quality=1, method=0)[12:]
    body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\x0f\x00\x00\x0f\x00\x00" + big
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def lying_avif() -> bytes:
    """Says 16 x 16 and holds 4000 x 4000."""
    content = bytearray(encode(Image.new("RGB", (4000, 4000)), "avif", speed=10, quality=10))
    place = content.index(b"ispe") + 8
    content[place : place + 8] = struct.pack(">II", 16, 16)
    return bytes(content)


def tiff_with_huge_strip() -> bytes:
    return tiff(
        (
            [
                (256, 4, 20_000),
                (257, 4, 4_000),
                (258, 3, 8),
                (259, 3, 5),  # LZW
                (262, 3, 1),
                (273, 4, 8),
                (277, 3, 1),
                (278, 4, 2**32 - 1),
                (279, 4, 2**32 - 1),
            ],
            0,
        )
    )


def bmp_claiming_more() -> bytes:
    content = bytearray(encode(Image.new("RGB", (16, 16)), "bmp"))
    content[18:26] = struct.pack("<ii", 8_900, 8_900)
    return bytes(content)


def png_with(*names: bytes) -> bytes:
    """Text and colour profile that inflate to 200 MB."""
    bomb = zeros(200 * MEBIBYTE)
    heads = {b"zTXt": b"a\x00\x00", b"iTXt": b"a\x00\x01\x00\x00\x00", b"iCCP": b"a\x00\x00"}
    extra = [chunk(name, heads[name] + bomb) for name in names]
    return png(9, 9, *extra, chunk(b"IDAT", zlib.compress(bytes(9 * 28))))


def jpeg_with_circular_exif() -> bytes:
    """Exif whose directory follows itself and is its own sub-directory."""
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    exif = b"Exif\x00\x00II*\x00" + struct.pack("<I", 8) + struct.pack("<H", 1) + entry
    exif += struct.pack("<I", 8)
    content = encode(Image.new("CMYK", (9, 9)), "jpeg")
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:]


@pytest.mark.parametrize(
    "make",
    [
        lying_webp,
        lying_avif,
        tiff_with_huge_strip,
        bmp_claiming_more,
        lambda: png(8_900, 8_900, chunk(b"IDAT", zlib.compress(b""))),
        lambda: png_with(b"zTXt"),
        lambda: png_with(b"iTXt"),
        lambda: png_with(b"iCCP"),
        lambda: png_with(*[b"zTXt"] * 20),
        jpeg_with_circular_exif,
    ],
    ids=[
        "webp-larger-than-its-canvas",
        "avif-larger-than-it-says",
        "tiff-of-one-huge-strip",
        "bmp-of-nothing",
        "png-of-nothing",
        "zTXt",
        "iTXt",
        "iCCP",
        "20-zTXt",
        "circular-exif",
    ],
)
def test_what_lies_about_its_size_costs_no_neighbour_and_little_memory(
    photo: Image.Image, make: Callable[[], bytes]
) -> None:
    decoder = ContainedDecoder(CPU.torch_device, DecodeLimits(), threads=1)
    try:
        decode(decoder, encode(photo, "png"))
        frames = decode(decoder, encode(photo, "png"), make(), encode(photo, "png"))
        assert [reason(frame) for frame in (frames[0], frames[2])] == ["", ""]
        assert reason(frames[1]) != "timeout"
        assert (frames[1].pixels is None) == frames[1].failed
        nursery = psutil.Process(decoder._nursery.pid)
        memory = sum(child.memory_info().rss for child in nursery.children())
        assert memory < 400 * MEBIBYTE
    finally:
        decoder.close()


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "tiff", "bmp"])
def test_tolerated_truncated_files_show_what_is_there_and_say_so(
    tolerant: Decoder, photo: Image.Image, kind: str
) -> None:
    options = {"jpeg": {"quality": 95}, "gif": {"interlace": False}}.get(kind, {})
    content = encode(photo, kind, **options)
    whole, cut = decode(tolerant, content, content[: len(content) * 6 // 10])
    assert whole.findings.image is not None
    assert not whole.findings.image.truncated
    assert cut.failure is None, cut.failure
    assert cut.pixels is not None
    assert cut.findings.image is not None
    assert cut.findings.image.truncated
    found, expected = cut.pixels.numpy().astype(int), np.asarray(photo).astype(int)
    if kind == "bmp":  # stored from the bottom
        found, expected = found[::-1], expected[::-1]
    assert np.abs(found[:80] - expected[:80]).mean() < 14
    if kind in {"png", "bmp"}:
        assert found[-1].tolist() == [[128, 128, 128]] * 300


def test_a_truncated_file_without_a_single_row_is_refused_even_when_tolerated(
    tolerant: Decoder, photo: Image.Image
) -> None:
    for kind in ("webp", "avif"):
        content = encode(photo, kind)
        assert reason(decode(tolerant, content[: len(content) // 2])[0]) in {"truncated", "corrupt"}


def test_truncated_files_are_refused_by_default_whatever_others_tolerate(
    tolerant: Decoder, decoder: Decoder, photo: Image.Image
) -> None:
    content = encode(photo, "tiff")[:-20_000]
    assert reason(decode(tolerant, content)[0]) == ""
    assert reason(decode(decoder, content)[0]) in {"truncated", "corrupt"}
