"""Promises of bfloat16: what it finds is what float32 finds, within bounds that are stated."""

from __future__ import annotations

import pytest

from bench.ocr_set import render
from bench.precision_accuracy import boxes, characters, devices, photos_and_edits, scores, search
from models.device import Device


@pytest.fixture(scope="module")
def pair() -> tuple[Device, Device]:
    return devices("cpu", "bf16")


def test_the_detector_finds_the_same_boxes(pair: tuple[Device, Device]) -> None:
    photos, _ = photos_and_edits()
    agreement = boxes(photos[:12], pair)
    assert agreement.detections >= 5
    assert agreement.found >= 0.9
    assert agreement.added <= 0.1
    assert agreement.median_iou >= 0.95
    assert agreement.largest_score_change <= 0.1


@pytest.mark.smoke
def test_edited_photos_are_found_as_well(pair: tuple[Device, Device]) -> None:
    photos, edits = photos_and_edits()
    agreement = search(photos, edits, pair)
    assert agreement.least_cosine >= 0.99
    full, lower = agreement.recall
    assert lower >= full - 0.03


def test_scores_hardly_change(pair: tuple[Device, Device]) -> None:
    photos, _ = photos_and_edits()
    assert scores(photos[:8], pair) <= 0.05


@pytest.mark.smoke
def test_text_is_read_as_well(pair: tuple[Device, Device]) -> None:
    full, lower = characters(render()[:3], pair)
    assert lower <= full + 0.005
