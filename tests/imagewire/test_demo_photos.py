"""The demonstration's pictures are real, readable, reproducible, and what they say they are."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from imagewire.demo.photos import CREDITS, DemoImage, make_demo_set


@pytest.fixture(scope="module")
def demo_set(tmp_path_factory: pytest.TempPathFactory) -> list[DemoImage]:
    return make_demo_set(tmp_path_factory.mktemp("demo"))


def test_the_set_has_sixty_pictures_and_two_broken_files(demo_set: list[DemoImage]) -> None:
    kinds = Counter(image.kind for image in demo_set)
    assert kinds == {"photo": 18, "edit": 30, "text": 12, "broken": 2}
    assert len({image.name for image in demo_set}) == len(demo_set)
    assert all(image.path.name == image.name for image in demo_set)


def test_every_picture_can_be_decoded_and_every_broken_file_cannot(
    demo_set: list[DemoImage],
) -> None:
    for image in demo_set:
        try:
            with Image.open(image.path) as picture:
                picture.load()
                readable = min(picture.size) >= 100
        except (OSError, ImportError):  # ImportError: from Ultralytics' own `Image.open`
            readable = False
        assert readable == (image.kind != "broken"), image.name


def test_the_set_passes_through_every_format(demo_set: list[DemoImage]) -> None:
    formats = set()
    for image in demo_set:
        if image.kind != "broken":
            with Image.open(image.path) as picture:
                formats.add(picture.format)
    assert formats == {"JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"}


def test_the_same_set_is_made_byte_for_byte_each_time(
    demo_set: list[DemoImage], tmp_path: Path
) -> None:
    again = make_demo_set(tmp_path)
    assert [_digest(image) for image in again] == [_digest(image) for image in demo_set]


def test_no_two_files_have_the_same_content(demo_set: list[DemoImage]) -> None:
    assert len({_digest(image) for image in demo_set}) == len(demo_set)


def test_an_edit_names_the_photo_that_it_was_made_from(demo_set: list[DemoImage]) -> None:
    photos = {image.name for image in demo_set if image.kind == "photo"}
    edits = [image for image in demo_set if image.kind == "edit"]
    assert all(edit.origin in photos and edit.change for edit in edits)


def test_the_sideways_photo_is_upright_once_its_orientation_is_applied(
    demo_set: list[DemoImage],
) -> None:
    by_name = {image.name: image.path for image in demo_set}
    with Image.open(by_name["bus-sideways.jpg"]) as picture, Image.open(by_name["bus.jpg"]) as bus:
        assert picture.size == bus.size[::-1]
        upright = ImageOps.exif_transpose(picture).resize((8, 8)).convert("L")
        expected = bus.resize((8, 8)).convert("L")
    difference = [abs(a - b) for a, b in zip(upright.tobytes(), expected.tobytes(), strict=True)]
    assert max(difference) < 12


def test_every_photo_is_credited(demo_set: list[DemoImage]) -> None:
    assert {credit.name for credit in CREDITS} == {
        image.name for image in demo_set if image.kind == "photo"
    }
    assert all(credit.title and credit.terms for credit in CREDITS)


def _digest(image: DemoImage) -> str:
    return hashlib.sha256(image.path.read_bytes()).hexdigest()
