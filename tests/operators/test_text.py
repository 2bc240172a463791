"""Text is read in every picture of a batch, whatever their sizes, and said where it stands."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image, ImageDraw, ImageFont

from models.catalog import load_catalog
from models.device import Device, choose_device
from models.errors import ModelError
from operators.frame import Frame, Origin
from operators.operator import OperatorError
from operators.text import TextOperator

FP32 = Device(torch.device("cpu"), torch.float32)
OCR_SET = Path(__file__).parents[2] / "bench" / "ocr_set.py"


def operator(device: Device = FP32, **options: Any) -> TextOperator:
    made = TextOperator(options, device, load_catalog())
    made.setup()
    return made


@pytest.fixture(scope="module")
def reader() -> Iterator[TextOperator]:
    made = operator()
    yield made
    made.close()


def frame_of(pixels: np.ndarray) -> Frame:
    frame = Frame("id", "feed", 0, Origin("images", 0, 0, 0))
    frame.pixels = torch.from_numpy(np.ascontiguousarray(pixels))
    return frame


def read(reader: TextOperator, *pictures: np.ndarray) -> list[Frame]:
    frames = [frame_of(picture) for picture in pictures]
    reader.process(frames)
    assert all(frame.failure is None for frame in frames)
    return frames


def words(frame: Frame) -> list[str]:
    return [line.text for line in frame.findings.texts]


def sign(
    *lines: str, size: tuple[int, int] = (480, 200), ink: Any = "black", paper: Any = "white"
) -> np.ndarray:
    """A sign with lines of 32-pixel letters, the first one at (40, 30), 60 pixels apart."""
    image = Image.new("RGB", size, paper)
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    font = ImageFont.truetype(str(path), 32)
    for number, line in enumerate(lines):
        ImageDraw.Draw(image).text((40, 30 + 60 * number), line, font=font, fill=ink)
    return np.array(image)


@pytest.fixture(scope="module")
def ocr_set() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ocr_set", OCR_SET)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their own module up by name.
    sys.modules["ocr_set"] = module
    spec.loader.exec_module(module)
    return module


def test_at_most_one_character_in_two_hundred_is_wrong_on_the_rendered_set(
    ocr_set: ModuleType,
) -> None:
    pictures = ocr_set.render()
    assert len(pictures) == 30
    reader = operator(choose_device("cpu"))
    frames = read(reader, *(picture.pixels for picture in pictures))
    rates = ocr_set.error_rates(pictures, [words(frame) for frame in frames])
    assert rates["all"] <= 0.005, rates
    assert max(rates.values()) <= 0.02, rates


def test_the_error_rate_counts_every_wrong_missing_or_swapped_character(
    ocr_set: ModuleType,
) -> None:
    picture = ocr_set.OcrPicture("clean", np.zeros((1, 1, 3), np.uint8), ("ABC DEF", "12345"))

    def wrong(*lines: str) -> tuple[int, int]:
        counted: tuple[int, int] = ocr_set.errors(picture, lines)
        return counted

    assert wrong("12345", "ABC", "DEF") == (0, 11)
    assert wrong("ABCXEF", "12345") == (1, 11)
    assert wrong("ABC DE", "1245") == (2, 11)
    assert wrong("ABC DEF") == (5, 11)
    assert wrong() == (11, 11)


def test_lines_come_in_reading_order_with_their_places(reader: TextOperator) -> None:
    picture = sign("Departures", "Gate 17", "Platform 4")
    (frame,) = read(reader, picture)
    assert words(frame) == ["Departures", "Gate 17", "Platform 4"]
    for number, line in enumerate(frame.findings.texts):
        assert 0.9 < line.score <= 1.0
        (left, top), (right, _), (_, bottom), _ = line.quad
        assert left == pytest.approx(40, abs=12)
        assert 150 < right < 330
        assert 30 + 60 * number - 12 < top < bottom < 30 + 60 * number + 60


def test_columns_on_one_line_are_read_from_left_to_right(reader: TextOperator) -> None:
    picture = sign(size=(700, 200))
    left, right = sign("Bread", "Coffee", size=(350, 200)), sign("2.50", "3.80", size=(350, 200))
    picture[:, :350], picture[:, 350:] = left, right
    (frame,) = read(reader, picture)
    assert words(frame) == ["Bread", "2.50", "Coffee", "3.80"]


def test_turned_text_is_read_and_its_quad_begins_where_the_text_begins(
    reader: TextOperator,
) -> None:
    upright = sign("Warehouse 42", size=(400, 120))
    reference, *turned = read(reader, *(np.rot90(upright, turns) for turns in range(4)))
    assert words(reference) == ["Warehouse 42"]
    expected = np.array(reference.findings.texts[0].quad)
    width, height = 400, 120
    for frame in turned:
        assert words(frame) == ["Warehouse 42"]
        # A counterclockwise quarter turn takes (x, y) to (y, width - x).
        expected = np.stack([expected[:, 1], width - expected[:, 0]], axis=1)
        width, height = height, width
        np.testing.assert_allclose(np.array(frame.findings.texts[0].quad), expected, atol=8)


def test_colours_do_not_matter(reader: TextOperator) -> None:
    frames = read(
        reader,
        sign("Emergency exit", ink="white", paper="green"),
        sign("Emergency exit", ink="red", paper="yellow"),
        sign("Emergency exit", ink="yellow", paper="black"),
    )
    for frame in frames:
        assert words(frame) == ["Emergency exit"]


def test_pictures_of_mixed_sizes_are_read_as_they_are_alone(reader: TextOperator) -> None:
    pictures = [
        sign("First", size=(300, 120)),
        sign("Second line", size=(900, 150)),
        sign("Third", size=(200, 700)),
        np.zeros((64, 64, 3), np.uint8),
        sign("Fourth picture", size=(1600, 1200)),
    ]
    together = read(reader, *pictures)
    assert [words(frame) for frame in together] == [
        ["First"],
        ["Second line"],
        ["Third"],
        [],
        ["Fourth picture"],
    ]
    for frame, picture in zip(together, pictures, strict=True):
        (alone,) = read(reader, picture)
        assert words(alone) == words(frame)


@pytest.mark.parametrize("shape", [(1, 1), (1, 15), (15, 1), (8, 8), (3, 2000), (2000, 3)])
def test_tiny_and_thin_pictures_have_no_text_and_no_error(
    reader: TextOperator, shape: tuple[int, int]
) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (*shape, 3), np.uint8)
    read(reader, noise, np.full((*shape, 3), 255, np.uint8))


@pytest.mark.parametrize("name", ["coffee", "retina"])
def test_the_outline_of_a_thing_that_fills_the_picture_is_no_text(
    reader: TextOperator, name: str
) -> None:
    picture = getattr(skimage.data, name)()
    assert words(read(reader, picture)[0]) == []


def test_lines_below_the_least_score_are_not_reported(reader: TextOperator) -> None:
    picture = sign("Departures")
    assert words(read(reader, picture)[0]) == ["Departures"]
    strict = operator(min_score=1.0, reread_below=0.0)
    assert words(read(strict, picture)[0]) == []


def test_every_finding_names_the_models_that_read_it(reader: TextOperator) -> None:
    (frame,) = read(reader, sign("Gate"))
    assert frame.findings.models == {"text": "ppocr-v6-small@3.10.0"}
    assert reader.model_versions() == {"text": "ppocr-v6-small@3.10.0"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"min_scor": 0.5}, OperatorError, "min_score"),
        ({"min_score": 1.5}, OperatorError, "min_score"),
        ({"detector": "ppocr-v6-det-smal"}, ModelError, "ppocr-v6-det-small"),
        ({"detector": "ppocr-v6-rec-small"}, ModelError, "must be for text-detection"),
    ],
)
def test_wrong_settings_are_refused_before_the_first_picture(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        operator(**options)


def test_an_empty_batch_is_nothing_to_do(reader: TextOperator) -> None:
    nothing: Sequence[Frame] = []
    reader.process(nothing)
