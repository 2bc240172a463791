"""The same picture keeps its fingerprint through resizing and recompression; others differ."""

from __future__ import annotations

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pdqhash
import pytest
import torch
import ultralytics
from PIL import Image, ImageEnhance
from skimage import data
from sklearn.datasets import load_sample_images

from models.catalog import load_catalog
from models.device import Device
from operators.findings import Fingerprint
from operators.fingerprint import FingerprintOperator, pdq
from operators.frame import Frame, Origin
from operators.operator import OperatorError

CPU = Device(torch.device("cpu"), torch.float32)
SAME = 31
"""Bits in which PDQ's authors let hashes of the same picture differ."""


def photos() -> dict[str, Image.Image]:
    assets = Path(ultralytics.__file__).parent / "assets"
    china, flower = load_sample_images().images
    return {
        "astronaut": Image.fromarray(data.astronaut()),
        "coffee": Image.fromarray(data.coffee()),
        "cat": Image.fromarray(data.chelsea()),
        "rocket": Image.fromarray(data.rocket()),
        "china": Image.fromarray(china),
        "flower": Image.fromarray(flower),
        "bus": Image.open(assets / "bus.jpg").convert("RGB"),
        "zidane": Image.open(assets / "zidane.jpg").convert("RGB"),
    }


PHOTOS = photos()


def hashed(image: Image.Image) -> np.ndarray:
    digest, quality = pdq(torch.from_numpy(np.array(image)))
    assert len(digest) == 64
    assert 0 <= quality <= 100
    return np.unpackbits(np.frombuffer(bytes.fromhex(digest), np.uint8))


def distance(first: np.ndarray, second: np.ndarray) -> int:
    return int((first != second).sum())


def recompressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


@pytest.mark.parametrize("name", PHOTOS)
def test_edited_copies_stay_near_the_original(name: str) -> None:
    photo = PHOTOS[name]
    original = hashed(photo)
    width, height = photo.size
    copies = {
        "recompressed": recompressed(photo, 25),
        "half the size": photo.resize((width // 2, height // 2)),
        "larger": photo.resize((width * 3 // 2, height * 3 // 2)),
        "thumbnail, recompressed": recompressed(photo.resize((width // 3, height // 3)), 50),
        "brighter": ImageEnhance.Brightness(photo).enhance(1.15),
    }
    distances = {edit: distance(original, hashed(copy)) for edit, copy in copies.items()}
    assert max(distances.values()) <= SAME, distances


def test_different_photos_are_far_apart() -> None:
    hashes = [hashed(photo) for photo in PHOTOS.values()]
    assert min(distance(first, second) for first, second in combinations(hashes, 2)) > 80


@pytest.mark.parametrize("size", [(512, 512), (500, 333), (300, 451), (64, 64), (40, 90)])
def test_hashes_are_those_of_the_reference_but_for_a_few_bits(size: tuple[int, int]) -> None:
    for photo in PHOTOS.values():
        pixels = np.array(photo.resize(size))
        bits, quality = pdqhash.compute(pixels)
        digest, found = pdq(torch.from_numpy(pixels))
        assert distance(hashed(photo.resize(size)), np.asarray(bits, np.uint8)) <= 4
        assert abs(found - quality) <= 2
        assert digest == pdq(torch.from_numpy(pixels))[0]


def frame_of(pixels: np.ndarray) -> Frame:
    frame = Frame("id", "feed", 0, Origin("images", 0, 0, 0), pixels=torch.from_numpy(pixels))
    frame.findings.fingerprint = Fingerprint(content_id="c" * 64)
    return frame


def test_the_operator_adds_hash_and_quality_and_keeps_the_content_id() -> None:
    operator = FingerprintOperator({}, CPU, load_catalog())
    operator.setup()
    frames = [frame_of(np.array(PHOTOS["cat"])), frame_of(np.zeros((30, 30, 3), np.uint8))]
    operator.process(frames)
    for frame in frames:
        assert frame.findings.fingerprint is not None
        assert frame.findings.fingerprint.content_id == "c" * 64
        assert len(frame.findings.fingerprint.pdq) == 64
        assert frame.findings.models == operator.model_versions() == {"fingerprint": "pdq@1.0"}
    qualities = [
        frame.findings.fingerprint.pdq_quality for frame in frames if frame.findings.fingerprint
    ]
    assert qualities[0] > 90
    assert qualities[1] == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 2), (7, 5)])
def test_tiny_and_thin_pictures_are_hashed_too(shape: tuple[int, int]) -> None:
    digest, _ = pdq(torch.full((*shape, 3), 90, dtype=torch.uint8))
    assert len(digest) == 64


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(OperatorError, match="threads"):
        FingerprintOperator({"threads": 4}, CPU, load_catalog())
