"""Every image is decoded upright to RGB, or fails alone with a stable reason."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from models.device import Device
from operators.decode import DecodeLimits, Decoder, make_decoder
from operators.decode_dali import DaliDecoder, dali_is_installed
from operators.frame import Frame, Origin
from operators.image_header import DECODE_REASONS

CPU = Device(torch.device("cpu"), torch.float32)
needs_dali = pytest.mark.skipif(
    not dali_is_installed(), reason="DALI is not installed; pip install 'imagewire[gpu]'"
)


@pytest.fixture(
    scope="module", params=["process", "thread", pytest.param("dali", marks=needs_dali)]
)
def decoder(request: pytest.FixtureRequest) -> Iterator[Decoder]:
    made: Decoder
    if request.param == "dali":
        others = make_decoder(CPU, DecodeLimits(), threads=2)
        made = DaliDecoder(CPU.torch_device, DecodeLimits(), others, threads=2)
    else:
        made = make_decoder(CPU, DecodeLimits(), threads=2, isolation=request.param)
    yield made
    made.close()


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(data.astronaut()).resize((120, 80))


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def frame_of(content: bytes | None) -> Frame:
    return Frame("id", "feed", 0, Origin("images", 0, 0, 0), content=content)


def decode(decoder: Decoder, *contents: bytes | None) -> list[Frame]:
    frames = [frame_of(content) for content in contents]
    decoder.decode(frames)
    return frames


def pixels(frame: Frame) -> np.ndarray:
    assert frame.failure is None, frame.failure
    assert frame.pixels is not None
    assert frame.pixels.dtype == torch.uint8
    assert frame.pixels.is_contiguous()
    return frame.pixels.cpu().numpy()


def reason(frame: Frame) -> str:
    assert frame.failure is not None
    assert frame.pixels is None
    assert frame.failure.stage == "decode"
    assert len(frame.failure.detail) > 10
    return frame.failure.reason


def difference(found: np.ndarray, expected: Image.Image) -> float:
    wanted = np.asarray(expected.convert("RGB")).astype(int)
    assert found.shape == wanted.shape
    return float(np.abs(found.astype(int) - wanted).mean())


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("jpeg", {"quality": 95}, 4.0),
        ("jpeg", {"quality": 95, "progressive": True}, 4.0),
        ("png", {}, 0.0),
        ("webp", {"lossless": True}, 0.0),
        ("webp", {"quality": 95}, 6.0),
        ("gif", {}, 12.0),
        ("bmp", {}, 0.0),
        ("tiff", {}, 0.0),
        ("tiff", {"compression": "tiff_lzw"}, 0.0),
        ("avif", {"quality": 95}, 6.0),
    ],
)
def test_each_format_is_recognised_from_its_content_and_decoded(
    decoder: Decoder, photo: Image.Image, kind: str, options: dict[str, Any], tolerance: float
) -> None:
    content = encode(photo, kind, **options)
    (frame,) = decode(decoder, content)
    assert difference(pixels(frame), photo) <= tolerance
    assert frame.findings.image is not None
    assert (frame.findings.image.width, frame.findings.image.height) == (120, 80)
    assert (frame.findings.image.format, frame.findings.image.bytes) == (kind, len(content))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "avif"])
def test_pictures_are_turned_upright_as_their_exif_orientation_says(
    decoder: Decoder, photo: Image.Image, kind: str, orientation: int
) -> None:
    # What a camera held in each of the eight ways stores for this upright picture.
    stored_as = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = photo.transpose(stored_as[orientation]) if orientation > 1 else photo
    exif = Image.Exif()
    exif[0x0112] = orientation
    (frame,) = decode(decoder, encode(stored, kind, exif=exif.tobytes()))
    assert difference(pixels(frame), photo) < 8
    assert frame.findings.image is not None
    assert (frame.findings.image.width, frame.findings.image.height) == (120, 80)


def test_transparent_pixels_are_laid_on_white(decoder: Decoder) -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.putpixel((0, 0), (255, 0, 0, 255))
    clear.putpixel((1, 0), (0, 0, 0, 128))
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((0, 0), 0)
    frames = decode(
        decoder,
        encode(clear, "png"),
        encode(clear, "webp", lossless=True),
        encode(palette, "gif", transparency=1),
        encode(palette, "png", transparency=1),
        encode(Image.new("LA", (8, 8), (0, 0)), "png"),
        encode(Image.new("RGB", (8, 8), (0, 0, 9)), "png", transparency=(0, 0, 9)),
    )
    for frame in frames:
        assert pixels(frame)[4, 4].tolist() == [255, 255, 255]
    for frame in frames[:4]:
        assert pixels(frame)[0, 0].tolist() == [255, 0, 0]
    assert pixels(frames[0])[0, 1].tolist() == pytest.approx([127, 127, 127], abs=1)


def test_grey_palette_bilevel_and_print_colours_become_rgb(
    decoder: Decoder, photo: Image.Image
) -> None:
    red = Image.new("RGB", (16, 16), (220, 20, 30))
    frames = decode(
        decoder,
        encode(photo.convert("L"), "jpeg", quality=95),
        encode(photo.convert("P"), "png"),
        encode(photo.convert("1"), "tiff"),
        encode(red.convert("CMYK"), "jpeg", quality=95),
        encode(red.convert("CMYK"), "tiff"),
    )
    assert difference(pixels(frames[0]), photo.convert("L")) < 4
    assert difference(pixels(frames[1]), photo.convert("P")) == 0
    assert set(np.unique(pixels(frames[2]))) == {0, 255}
    for frame in frames[3:]:
        assert pixels(frame)[8, 8].tolist() == pytest.approx([220, 20, 30], abs=4)


def test_sixteen_bit_pictures_keep_their_brightness(decoder: Decoder) -> None:
    ramp = np.linspace(0, 65535, 64 * 4).reshape(4, 64)
    expected = np.rint(ramp / 257)
    grey = Image.fromarray(ramp.astype(np.uint16))
    colour = png_of_16_bit_colour(ramp.astype(np.uint16))
    frames = decode(
        decoder,
        encode(grey, "png"),
        encode(grey, "tiff"),
        colour,
        encode(Image.fromarray((ramp / 65535).astype(np.float32)), "tiff"),
        encode(Image.fromarray(ramp.astype(np.int32)), "tiff"),
    )
    for frame in frames:
        found = pixels(frame)
        assert found.shape == (4, 64, 3)
        assert np.abs(found - expected[:, :, None]).max() <= 1


def png_of_16_bit_colour(grey: np.ndarray) -> bytes:
    """Pillow cannot write 16-bit colour, so the chunks are put together here."""

    def chunk(name: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + check

    height, width = grey.shape
    rows = np.repeat(grey[:, :, None], 3, axis=2).astype(">u2")
    picture = b"".join(b"\x00" + row.tobytes() for row in rows)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(picture))
        + chunk(b"IEND", b"")
    )


def test_an_animation_gives_its_first_frame(decoder: Decoder) -> None:
    first, second = Image.new("RGB", (16, 16), "blue"), Image.new("RGB", (16, 16), "green")
    for kind in ("gif", "webp"):
        content = encode(first, kind, save_all=True, append_images=[second], duration=100)
        (frame,) = decode(decoder, content)
        assert pixels(frame)[8, 8].tolist() == pytest.approx([0, 0, 255], abs=4)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif", "bmp", "tiff", "avif"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_a_truncated_file_is_refused(
    decoder: Decoder, photo: Image.Image, kind: str, share: float
) -> None:
    content = encode(photo.resize((300, 200)), kind)
    (frame,) = decode(decoder, content[: int(len(content) * share)])
    assert reason(frame) in {"truncated", "corrupt"}
    if kind in {"jpeg", "png", "webp"}:
        assert reason(frame) == "truncated"


def test_a_jpeg_that_lacks_only_its_last_byte_is_refused(
    decoder: Decoder, photo: Image.Image
) -> None:
    exif = Image.Exif()
    exif[0x010E] = "the bytes \xff\xd9 inside a description must not pass for the end"
    content = encode(photo, "jpeg", exif=exif.tobytes())
    assert reason(decode(decoder, content[:-1])[0]) == "truncated"
    assert decode(decoder, content + b"trailing bytes are harmless")[0].failure is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>404 not found", "not-an-image"),
        (b'{"error": "no such image"}', "not-an-image"),
        (b"\x00" * 100, "not-an-image"),
        (b"\xff\xd8\xff", "truncated"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", "truncated"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "truncated"),
        (b"RIFF\x24\x00\x00\x00WEBPVP8 ", "truncated"),
        (b"\x89PNG\r\n\x1a\n" + b"\x07" * 200, "corrupt"),
        (b"\xff\xd8\xff\xe0\x00\x04ab" + b"\x07" * 200, "corrupt"),
        (b"BMI of 22 and other numbers", "not-an-image"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported-format"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "unsupported-format"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00isommp42", "unsupported-format"),
        (b"%PDF-1.7\n", "unsupported-format"),
    ],
)
def test_what_is_no_image_gets_a_stable_reason(
    decoder: Decoder, content: bytes | None, expected: str
) -> None:
    (frame,) = decode(decoder, content)
    assert reason(frame) == expected


def test_one_bad_image_never_affects_its_neighbours(decoder: Decoder, photo: Image.Image) -> None:
    good = encode(photo, "jpeg", quality=95)
    # Valid to the eye of the screening: markers in place, picture data garbled.
    scan = good.index(b"\xff\xda")
    garbled = good[: scan + 14] + b"\xff\xd9"
    frames = decode(decoder, good, garbled, good[:200], b"", good, encode(photo, "png"))
    for index in (0, 4, 5):
        assert difference(pixels(frames[index]), photo) < 4
    assert reason(frames[2]) == "truncated"
    assert reason(frames[3]) == "empty"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_files_are_decoded_or_refused_but_never_raise(
    decoder: Decoder, photo: Image.Image
) -> None:
    chance = random.Random(4)
    contents = []
    for kind in ("jpeg", "png", "webp", "gif", "bmp", "tiff", "avif"):
        for number in range(25):
            content = bytearray(encode(photo, kind))
            reach = len(content) if number % 2 else min(200, len(content))
            for _ in range(chance.randint(1, 6)):
                content[chance.randrange(reach)] = chance.randrange(256)
            contents.append(bytes(content))
    frames = decode(decoder, *contents, encode(photo, "png"))
    for frame in frames:
        assert (frame.pixels is None) == frame.failed
        assert frame.failure is None or frame.failure.reason in DECODE_REASONS
    assert any(frame.failed for frame in frames)
    assert difference(pixels(frames[-1]), photo) == 0


def test_the_fingerprint_names_the_bytes_even_when_they_cannot_be_decoded(
    decoder: Decoder, photo: Image.Image
) -> None:
    contents = [encode(photo, "jpeg"), b"not an image at all", b""]
    for frame, content in zip(decode(decoder, *contents), contents, strict=True):
        assert frame.findings.fingerprint is not None
        assert frame.findings.fingerprint.content_id == hashlib.sha256(content).hexdigest()
        assert frame.content is None


def test_frames_that_have_already_failed_are_left_alone(decoder: Decoder) -> None:
    frame = frame_of(None)
    frame.fail("fetch", "http-status", "the server answered 404")
    decoder.decode([frame])
    assert frame.failure is not None
    assert frame.failure.stage == "fetch"
    assert frame.findings.fingerprint is None


def oversized(kind: str, width: int, height: int) -> bytes:
    """A small file whose header claims a large picture."""
    content = bytearray(encode(Image.new("RGB", (16, 16)), kind))
    if kind == "jpeg":
        start = content.index(b"\xff\xc0") + 5
        content[start : start + 4] = struct.pack(">HH", height, width)
    elif kind == "png":
        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    elif kind == "gif":
        content[6:10] = struct.pack("<HH", width, height)
    elif kind == "bmp":
        content[18:26] = struct.pack("<ii", width, height)
    elif kind == "webp":
        start = content.index(b"VP8 ") + 14
        content[start : start + 4] = struct.pack("<HH", width, height)
    return bytes(content)


@pytest.mark.parametrize(
    ("kind", "width", "height", "expected"),
    [
        ("jpeg", 30000, 30000, "too-many-pixels"),
        ("jpeg", 65000, 10, "too-large-side"),
        ("png", 20000, 20000, "too-many-pixels"),
        ("png", 2**31 - 1, 1, "too-large-side"),
        ("gif", 20000, 20000, "too-many-pixels"),
        ("bmp", 20000, 20000, "too-many-pixels"),
        ("webp", 16000, 16000, "too-many-pixels"),
    ],
)
def test_a_size_beyond_the_limits_is_refused_from_the_header(
    decoder: Decoder, kind: str, width: int, height: int, expected: str
) -> None:
    (frame,) = decode(decoder, oversized(kind, width, height))
    assert reason(frame) == expected


def test_more_bytes_than_allowed_are_refused(photo: Image.Image) -> None:
    content = encode(photo, "png")
    decoder = make_decoder(CPU, DecodeLimits(max_bytes=len(content) - 1), threads=1)
    (frame,) = decode(decoder, content)
    decoder.close()
    assert reason(frame) == "too-many-bytes"


@needs_dali
def test_a_batch_that_dali_refuses_is_decoded_one_by_one(
    photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = encode(photo, "jpeg", quality=95)
    others = make_decoder(CPU, DecodeLimits(), threads=1)
    decoder = DaliDecoder(CPU.torch_device, DecodeLimits(), others, threads=1)

    def refuse(batch: object) -> None:
        raise RuntimeError("one of these cannot be decoded")

    with monkeypatch.context() as patched:
        patched.setattr(decoder, "_run", refuse)
        frames = decode(decoder, good, good, good)
    frames += decode(decoder, good)
    for frame in frames:
        assert difference(pixels(frame), photo) < 4
    decoder.close()


@needs_dali
def test_a_jpeg_with_invalid_tables_never_reaches_dali(photo: Image.Image) -> None:
    good = encode(photo, "jpeg", quality=95)
    table = good.index(b"\xff\xdb")
    broken = good[:table] + b"\xff\xdb\x00\x03\x09" + good[table:]
    others = make_decoder(CPU, DecodeLimits(), threads=1)
    decoder = DaliDecoder(CPU.torch_device, DecodeLimits(), others, threads=1)
    frames = decode(decoder, good, broken, good)
    assert difference(pixels(frames[0]), photo) < 4
    assert reason(frames[1]) == "corrupt"
    assert difference(pixels(frames[2]), photo) < 4
    decoder.close()
