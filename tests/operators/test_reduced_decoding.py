"""Large JPEGs are decoded no larger than operators need, and findings stay those of the whole."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from analysed_photos import photo
from PIL import Image, ImageDraw, ImageFont
from torchvision.ops import box_iou

from models.catalog import load_catalog
from models.device import Device
from operators.chain import OperatorChain
from operators.decode import DecodeLimits, Decoder, Isolation, make_decoder
from operators.frame import Frame, Origin
from operators.image_facts import ImageHeader
from operators.least_size import LeastSize, largest, reduction_for
from operators.operator import Operator
from operators.policy import Policy
from operators.registry import build_operators
from operators.text import TextOperator

CPU = Device(torch.device("cpu"), torch.float32)
SMALL = LeastSize(shorter=300, longer=400)
"""A quarter of 1600 x 1200."""


def jpeg(picture: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, options.pop("format", "JPEG"), **{"quality": 90, **options})
    return buffer.getvalue()


def enlarged(name: str, width: int, height: int) -> Image.Image:
    return Image.fromarray(photo(name).numpy()).resize((width, height), Image.Resampling.LANCZOS)


def decoded(decoder: Decoder, contents: Sequence[bytes]) -> list[Frame]:
    frames = [
        Frame("photo", "test", 0, Origin("images", 0, 0, 0), content=each) for each in contents
    ]
    decoder.decode(frames)
    return frames


def once(
    contents: Sequence[bytes],
    least: LeastSize | None,
    limits: DecodeLimits | None = None,
    isolation: Isolation = "process",
) -> list[Frame]:
    decoder = make_decoder(CPU, limits or DecodeLimits(), 1, isolation, least)
    try:
        return decoded(decoder, contents)
    finally:
        decoder.close()


def shape(frame: Frame) -> tuple[int, ...]:
    assert frame.failure is None, frame.failure
    assert frame.pixels is not None
    return tuple(frame.pixels.shape)


def size_found(frame: Frame) -> tuple[int, int]:
    assert frame.findings.image is not None
    return frame.findings.image.width, frame.findings.image.height


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return enlarged("astronaut", 1600, 1200)


@pytest.fixture(scope="module")
def chain() -> Iterator[OperatorChain]:
    operators = build_operators({"text": {"enabled": False}}, CPU, load_catalog())
    made = OperatorChain(operators, Policy.load())
    made.setup()
    yield made
    made.close()


def test_findings_of_large_photos_are_those_of_the_full_picture(chain: OperatorChain) -> None:
    """4000 x 3000 at a quarter: boxes overlap by 0.95 and more, embeddings have a cosine of 0.998
    and more, scores differ by 0.02 at most, and PDQ hashes in 6 of 256 bits at most."""
    contents = [jpeg(enlarged(name, 4000, 3000)) for name in ("astronaut", "hopper", "zidane")]
    full, reduced = once(contents, None), once(contents, chain.least_size())
    assert {shape(frame) for frame in full} == {(3000, 4000, 3)}
    assert {shape(frame) for frame in reduced} == {(750, 1000, 3)}
    for frames in (full, reduced):
        chain.process(frames)
    boxes = 0
    for whole, small in zip(full, reduced, strict=True):
        assert whole.failure is None and small.failure is None
        assert size_found(small) == size_found(whole) == (4000, 3000)
        expected, found = whole.findings, small.findings
        assert len(found.objects) == len(expected.objects)
        for one, other in zip(expected.objects, found.objects, strict=True):
            boxes += 1
            assert one.label == other.label
            assert box_iou(torch.tensor([one.box]), torch.tensor([other.box])).item() >= 0.95
        assert expected.embedding is not None and found.embedding is not None
        assert np.dot(expected.embedding.vector, found.embedding.vector) >= 0.998
        for label, score in expected.scores.items():
            assert found.scores[label] == pytest.approx(score, abs=0.02)
        assert expected.fingerprint is not None and found.fingerprint is not None
        assert found.fingerprint.content_id == expected.fingerprint.content_id
        bits = int(expected.fingerprint.pdq, 16) ^ int(found.fingerprint.pdq, 16)
        assert bits.bit_count() <= 6
    assert boxes


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_reduced_pictures_are_turned_upright(
    picture: Image.Image, orientation: int, isolation: Isolation
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = jpeg(picture, exif=exif.tobytes())
    (full,) = once([content], None, isolation="thread")
    (small,) = once([content], SMALL, isolation=isolation)
    assert size_found(small) == size_found(full)
    assert shape(small) == ((400, 300, 3) if orientation >= 5 else (300, 400, 3))
    assert full.pixels is not None and small.pixels is not None
    wanted = Image.fromarray(full.pixels.numpy()).reduce(4)
    assert np.abs(np.asarray(wanted).astype(int) - small.pixels.numpy()).mean() < 2.5


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {"progressive": True}),
        ("L", {}),
        ("L", {"progressive": True}),
        ("RGB", {"subsampling": 0}),
        ("RGB", {"restart_marker_blocks": 4}),
    ],
)
def test_every_kind_of_ordinary_jpeg_is_reduced(
    picture: Image.Image, mode: str, options: dict[str, Any]
) -> None:
    content = jpeg(picture.convert(mode), **options)
    (full,), (small,) = once([content], None), once([content], SMALL)
    assert (shape(full), shape(small)) == ((1200, 1600, 3), (300, 400, 3))
    assert full.pixels is not None and small.pixels is not None
    wanted = np.asarray(Image.fromarray(full.pixels.numpy()).reduce(4)).astype(int)
    assert np.abs(wanted - small.pixels.numpy()).mean() < 2.5


@pytest.mark.parametrize("kind", ["cmyk", "png", "webp", "truncated"])
def test_what_is_no_whole_ordinary_jpeg_is_decoded_in_full(picture: Image.Image, kind: str) -> None:
    content = {
        "cmyk": lambda: jpeg(picture.convert("CMYK")),
        "png": lambda: jpeg(picture, format="PNG"),
        "webp": lambda: jpeg(picture, format="WEBP"),
        "truncated": lambda: jpeg(picture)[:-4000],
    }[kind]()
    tolerant = DecodeLimits(truncated="tolerate")
    (full,), (small,) = once([content], None, tolerant), once([content], SMALL, tolerant)
    assert shape(small) == (1200, 1600, 3)
    assert full.pixels is not None and small.pixels is not None
    assert torch.equal(full.pixels, small.pixels)
    assert full.findings.image == small.findings.image


def test_damaged_files_meet_the_same_fate_at_a_reduced_size(picture: Image.Image) -> None:
    whole = jpeg(picture)
    chance = np.random.default_rng(4)
    contents = [whole[: len(whole) // 2], whole[:300], b"", b"no picture"]
    for _ in range(24):
        damaged = bytearray(whole)
        for position in chance.integers(2, len(whole) if len(contents) % 2 else 700, 6):
            damaged[position] ^= int(chance.integers(1, 256))
        contents.append(bytes(damaged))

    def fates(frames: Sequence[Frame]) -> list[tuple[str, Any]]:
        return [
            (frame.failure.reason, None) if frame.failure else ("decoded", size_found(frame))
            for frame in frames
        ]

    found = fates(once(contents, SMALL))
    assert found == fates(once(contents, None))
    assert ("decoded", (1600, 1200)) in found
    assert {"truncated", "empty", "not-an-image"} <= {reason for reason, _ in found}


def test_limits_hold_for_the_original_size(picture: Image.Image) -> None:
    (frame,) = once([jpeg(picture)], SMALL, DecodeLimits(max_pixels=1_000_000))
    assert frame.failure is not None
    assert frame.failure.reason == "too-many-pixels"


def test_a_part_of_a_batch_holds_more_pictures_when_they_are_reduced(picture: Image.Image) -> None:
    contents = [jpeg(picture)] * 8
    limits = DecodeLimits(max_memory=2 * 16 * 1600 * 1200)

    def parts(least: LeastSize | None) -> int:
        decoder = make_decoder(CPU, limits, 1, "thread", least)
        try:
            frames = [
                Frame("photo", "test", 0, Origin("images", 0, 0, 0), content=each)
                for each in contents
            ]
            return len(list(decoder.decode_parts(frames)))
        finally:
            decoder.close()

    assert (parts(None), parts(SMALL)) == (4, 1)


def test_memory_for_a_progressive_jpeg_counts_the_coefficients_of_the_whole() -> None:
    plain = ImageHeader("jpeg", 4000, 3000, plain=True)
    progressive = ImageHeader("jpeg", 4000, 3000, plain=True, buffered=True)
    limits = DecodeLimits()
    assert limits.memory(plain, 4) == 16 * 1000 * 750
    assert limits.memory(progressive, 4) == 16 * 1000 * 750 + 6 * 4000 * 3000


@pytest.mark.parametrize(
    ("size", "least", "reduction"),
    [
        ((4000, 3000), LeastSize(shorter=375), 8),
        ((4000, 3000), LeastSize(shorter=376), 4),
        ((4000, 3000), LeastSize(longer=500), 8),
        ((4000, 3000), LeastSize(shorter=512, longer=640), 4),
        ((640, 480), LeastSize(shorter=512, longer=640), 1),
        ((4001, 3001), LeastSize(shorter=1501, longer=2001), 2),
        ((9000, 100), LeastSize(shorter=13), 8),
        ((9000, 100), LeastSize(shorter=51), 1),
        ((4000, 3000), None, 1),
    ],
)
def test_a_picture_is_reduced_as_far_as_is_enough_and_no_further(
    size: tuple[int, int], least: LeastSize | None, reduction: int
) -> None:
    assert reduction_for(ImageHeader("jpeg", *size, plain=True), least) == reduction


def test_an_operator_that_says_nothing_gets_the_full_size() -> None:
    class Watermarks(Operator):
        name = "watermarks"

        def process(self, frames: Sequence[Frame]) -> None:
            raise AssertionError

    catalog = load_catalog()
    silent = Watermarks({}, CPU, catalog)
    assert silent.least_size() is None
    assert largest([LeastSize(224), silent.least_size()]) is None
    assert largest([LeastSize(448), LeastSize(longer=640)]) == LeastSize(448, 640)
    assert TextOperator({}, CPU, catalog).least_size() is None


def test_text_of_a_reduced_picture_has_its_place_in_the_original() -> None:
    page = Image.new("RGB", (2400, 1600), "white")
    ImageDraw.Draw(page).text((300, 900), "Harbour 1987", "black", ImageFont.load_default(160))
    reader = TextOperator({"reading_side": 1200}, CPU, load_catalog())
    reader.setup()
    assert reader.least_size() == LeastSize(longer=1200)
    (full,), (small,) = once([jpeg(page)], None), once([jpeg(page)], reader.least_size())
    assert shape(small) == (800, 1200, 3)
    reader.process([full])
    reader.process([small])
    reader.close()
    assert [line.text for line in small.findings.texts] == ["Harbour 1987"]
    corners = [np.array(frame.findings.texts[0].quad) for frame in (full, small)]
    assert np.abs(corners[0] - corners[1]).max() < 12
