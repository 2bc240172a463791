"""Lines cut out on the device are those that OpenCV cuts out; boxes are those of PaddleOCR."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from rapidocr.ch_ppocr_det.utils import DBPostProcess
from rapidocr.utils.process_img import get_rotate_crop_image

from models.ppocr_boxes import BoxRules, boxes_in
from models.ppocr_lines import LineSource, Place


def smooth(photo: torch.Tensor) -> np.ndarray:
    """Without detail finer than interpolation methods agree on."""
    return cv2.GaussianBlur(photo.numpy(), (0, 0), 3)


def quad(*corners: tuple[float, float]) -> np.ndarray:
    return np.array(corners, np.float32)


PLACES = {
    "upright": quad((60, 80), (260, 80), (260, 120), (60, 120)),
    "turned a little": quad((60, 80), (250, 110), (244, 150), (54, 120)),
    "in perspective": quad((60, 80), (250, 70), (255, 130), (55, 110)),
    "at the corner": quad((0, 0), (150, 0), (150, 30), (0, 30)),
}


@pytest.mark.parametrize("name", PLACES)
def test_lines_are_those_that_opencv_cuts_out(photos: dict[str, torch.Tensor], name: str) -> None:
    pictures = [torch.from_numpy(smooth(photos[key])) for key in ("astronaut", "coffee")]
    crop = get_rotate_crop_image(pictures[1].numpy(), PLACES[name])
    width = round(48 * crop.shape[1] / crop.shape[0])
    wanted = cv2.resize(crop, (width, 48)).astype(np.float32)
    source = LineSource(pictures, [1])
    line = source.cut([Place(1, PLACES[name])], [width], 48, 480)
    assert line.shape == (1, 3, 48, 480)
    found = line[0, :, :, :width].permute(1, 2, 0).numpy()
    assert np.abs(found - wanted).mean() < 1.0
    assert np.abs(found - wanted).max() < 12
    assert (line[0, :, :, width:] == 127.5).all()


def test_each_line_comes_from_its_own_picture() -> None:
    pictures = [torch.full((40 + i, 90 - i, 3), 20 * i, dtype=torch.uint8) for i in range(4)]
    places = [Place(i, quad((5, 5), (35, 5), (35, 20), (5, 20))) for i in (3, 1, 2)]
    lines = LineSource(pictures, [1, 2, 3]).cut(places, [96, 96, 96], 48, 160)
    assert lines[:, 0, 10, 10].tolist() == [60, 20, 40]


def test_a_turned_place_begins_at_another_corner(photos: dict[str, torch.Tensor]) -> None:
    picture = torch.from_numpy(smooth(photos["coffee"]))
    place = Place(0, PLACES["upright"])
    source = LineSource([picture], [0])
    upright, upside_down = source.cut([place, place.turned(2)], [240, 240], 48, 240)
    turned = upright.flip(1, 2)
    # A box's corner is a pixel's centre at one end, and beyond the last pixel at the other.
    assert (upside_down - turned).abs().mean() < 4
    assert place.turned(1).size == (200, 40)


@pytest.mark.parametrize("seed", range(5))
def test_boxes_are_those_of_paddles_own_post_processing(seed: int) -> None:
    chance = np.random.default_rng(seed)
    bars = np.zeros((320, 480), np.float32)
    for row in range(5):
        centre = (float(chance.uniform(120, 360)), 40 + 60.0 * row)
        size = (float(chance.uniform(60, 200)), float(chance.uniform(8, 20)))
        box = cv2.boxPoints((centre, size, float(chance.uniform(-8, 8))))
        cv2.fillPoly(bars, [box.astype(np.int32)], float(chance.uniform(0.4, 1.0)))
    probabilities = cv2.GaussianBlur(bars, (0, 0), 1.5)
    paddles = DBPostProcess(thresh=0.3, box_thresh=0.5, unclip_ratio=1.6, use_dilation=True)
    wanted, _ = paddles(probabilities[None, None], (640, 960))
    found = boxes_in(probabilities, (640, 960), BoxRules())
    assert len(found) == len(wanted) > 0
    assert np.abs(found - wanted).max() <= 4
    assert np.abs(found - wanted).mean() <= 1.5


def test_an_empty_map_has_no_boxes() -> None:
    assert boxes_in(np.zeros((64, 64), np.float16), (64, 64), BoxRules()).shape == (0, 4, 2)
