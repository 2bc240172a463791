"""Only JPEGs whose tables are valid reach a decoder that nothing contains."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image
from skimage import data

from operators.jpeg_tables import is_well_formed


def jpeg(**options: Any) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(data.astronaut()).resize((64, 48))
    picture.convert(options.pop("mode", "RGB")).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "L"},
        {"progressive": True},
        {"optimize": True, "quality": 3},
        {"quality": 100, "subsampling": 0},
        {"subsampling": 1},
        {"restart_marker_blocks": 1},
        {"comment": b"a comment", "icc_profile": bytes(100_000)},
    ],
)
def test_what_encoders_write_is_well_formed(options: dict[str, Any]) -> None:
    assert is_well_formed(jpeg(**options))


def broken(change: str) -> bytes:
    content = bytearray(jpeg())
    frame, scan = content.index(b"\xff\xc0"), content.index(b"\xff\xda")
    quantization, huffman = content.index(b"\xff\xdb"), content.index(b"\xff\xc4")
    match change:
        case "sampling of zero":
            content[frame + 11] = 0x01
        case "the same component twice":
            content[frame + 13] = content[frame + 10]
        case "a missing quantisation table":
            content[frame + 12] = 3
        case "two frame headers":
            content[frame:frame] = content[frame : frame + 19]
        case "a quantisation step of zero":
            content[quantization + 5] = 0
        case "a short quantisation table":
            content[quantization:quantization] = b"\xff\xdb\x00\x03\x09"
        case "more codes than fit":
            content[huffman + 5] = 9
        case "a scan of an unknown component":
            content[scan + 5] = 200
        case "an odd spectral range":
            content[scan + 11] = 64
        case "an arithmetic coding table":
            content[2:2] = b"\xff\xcc\x00\x04\x00\x00"
    return bytes(content)


@pytest.mark.parametrize(
    "change",
    [
        "sampling of zero",
        "the same component twice",
        "a missing quantisation table",
        "two frame headers",
        "a quantisation step of zero",
        "a short quantisation table",
        "more codes than fit",
        "a scan of an unknown component",
        "an odd spectral range",
        "an arithmetic coding table",
    ],
)
def test_broken_tables_are_found(change: str) -> None:
    assert broken(change) != jpeg()
    assert not is_well_formed(broken(change))


def test_no_beginning_of_a_jpeg_is_well_formed() -> None:
    content = jpeg()
    scan = content.index(b"\xff\xda")
    assert not any(is_well_formed(content[:length]) for length in range(scan + 4))
