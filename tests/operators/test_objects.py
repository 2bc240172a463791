"""Objects: boxes in pixels of the original picture, whatever its size and company."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from analysed_photos import frame_of, photo
from nudenet import NudeDetector

from models.catalog import Catalog, ModelCard, load_catalog
from models.device import Device
from models.errors import ModelError
from models.weights import sha256_of
from operators.findings import Detection
from operators.letterbox import GREY, letterbox
from operators.objects import ObjectsOperator
from operators.operator import OperatorError

CPU = Device(torch.device("cpu"), torch.float32)
PORTRAITS = ("astronaut", "zidane", "hopper")


def operator(**options: Any) -> ObjectsOperator:
    made = ObjectsOperator(options, CPU, load_catalog())
    made.setup()
    return made


@pytest.fixture(scope="module")
def default() -> ObjectsOperator:
    return operator()


def is_close(found: list[Detection], expected: list[Detection], pixels: float) -> bool:
    return [d.label for d in found] == [d.label for d in expected] and all(
        np.allclose(a.box, b.box, atol=pixels) and abs(a.score - b.score) < 0.01
        for a, b in zip(found, expected, strict=True)
    )


def test_a_face_is_found_on_real_portraits(default: ObjectsOperator) -> None:
    frames = [frame_of(photo(name)) for name in PORTRAITS]
    default.process(frames)
    for frame in frames:
        assert frame.findings.objects[0].label.startswith("FACE_")
        assert frame.findings.models == {"objects": "nudenet-320n@3.4.2"}
    x1, y1, x2, y2 = frames[0].findings.objects[0].box
    assert 165 < x1 < 185 and 70 < y1 < 95 and 260 < x2 < 290 and 165 < y2 < 195


def test_a_square_picture_gives_the_boxes_of_nudenets_own_detector() -> None:
    """A square of the network's size leaves nothing to resizing and padding.

    NudeNet's package feeds an RGB array to its network as RGB (and a file, read by OpenCV, as
    BGR, for which the network scores real faces lower); its boxes are cut to whole pixels.
    """
    pixels, _ = letterbox([photo("astronaut")], (320, 320))
    picture = pixels[0].permute(1, 2, 0).contiguous()
    frame = frame_of(picture)
    operator(input_size=320).process([frame])
    expected = NudeDetector().detect(picture.numpy())
    assert [d.label for d in frame.findings.objects] == [e["class"] for e in expected] != []
    for found, reference in zip(frame.findings.objects, expected, strict=True):
        x, y, width, height = reference["box"]
        assert found.score == pytest.approx(reference["score"], abs=1e-3)
        assert np.allclose(found.box, (x, y, x + width, y + height), atol=2)


def test_pictures_of_mixed_sizes_are_seen_as_they_are_alone(default: ObjectsOperator) -> None:
    names = (*PORTRAITS, "coffee", "bus")
    together = [frame_of(photo(name)) for name in names]
    default.process(together)
    for name, frame in zip(names, together, strict=True):
        alone = frame_of(photo(name))
        default.process([alone])
        assert is_close(frame.findings.objects, alone.findings.objects, 0.5)


def test_a_large_batch_goes_through_in_pieces(default: ObjectsOperator) -> None:
    pieces = operator(batch=2)
    frames = [frame_of(photo(name)) for name in PORTRAITS]
    whole = [frame_of(photo(name)) for name in PORTRAITS]
    pieces.process(frames)
    default.process(whole)
    for frame, expected in zip(frames, whole, strict=True):
        assert is_close(frame.findings.objects, expected.findings.objects, 0.5)


def test_boxes_follow_a_picture_that_is_enlarged_and_shifted(default: ObjectsOperator) -> None:
    astronaut = photo("astronaut")
    wide = torch.full((512, 1024, 3), 114, dtype=torch.uint8)
    wide[:, 512:] = astronaut
    plain, shifted = frame_of(astronaut), frame_of(wide)
    default.process([plain])
    default.process([shifted])
    expected = np.add(plain.findings.objects[0].box, (512, 0, 512, 0))
    assert np.allclose(shifted.findings.objects[0].box, expected, atol=12)


def test_boxes_stay_inside_the_picture_and_come_best_first() -> None:
    frames = [frame_of(photo(name)) for name in ("bus", "zidane", "coffee")]
    operator(confidence=0.02).process(frames)
    for frame in frames:
        assert frame.pixels is not None
        height, width = frame.pixels.shape[:2]
        scores = [d.score for d in frame.findings.objects]
        assert len(scores) > 3 and scores == sorted(scores, reverse=True)
        for d in frame.findings.objects:
            assert 0 <= d.box[0] < d.box[2] <= width and 0 <= d.box[1] < d.box[3] <= height


def test_only_the_best_are_kept(default: ObjectsOperator) -> None:
    frame = frame_of(photo("bus"))
    operator(confidence=0.02, max_detections=2).process([frame])
    assert len(frame.findings.objects) == 2


def test_a_larger_input_finds_smaller_faces() -> None:
    frame = frame_of(photo("bus"))
    operator(input_size=640).process([frame])
    assert "FACE_MALE" in {d.label for d in frame.findings.objects}


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 4000, 3), (4000, 1, 3), (200, 12000, 3)])
def test_a_degenerate_picture_is_no_obstacle(
    default: ObjectsOperator, shape: tuple[int, int, int]
) -> None:
    portrait = frame_of(photo("astronaut"))
    odd = frame_of(torch.zeros(shape, dtype=torch.uint8))
    default.process([odd, portrait])
    assert not odd.failed and odd.findings.objects == []
    assert portrait.findings.objects


def test_a_frame_without_a_picture_fails_alone(default: ObjectsOperator) -> None:
    portrait, empty = frame_of(photo("astronaut")), frame_of(torch.zeros(0, 5, 3))
    default.process([empty, portrait])
    assert empty.failure is not None
    assert (empty.failure.stage, empty.failure.reason) == ("objects", "no-picture")
    assert portrait.findings.objects and not portrait.failed


def test_letterboxing_keeps_the_ratio_and_fills_with_grey() -> None:
    batch, (placement,) = letterbox([torch.zeros(100, 200, 3, dtype=torch.uint8)], (320, 320))
    assert batch.shape == (1, 3, 320, 320)
    assert (placement.top, placement.left) == (80, 0)
    assert batch[0, :, 80:240].max() == 0
    assert batch[0, :, :80].min() == batch[0, :, 240:].max() == GREY
    corners = torch.tensor([[0.0, 80, 320, 240], [-9, 70, 400, 300]])
    assert placement.to_original(corners).tolist() == [[0, 0, 200, 100]] * 2


def test_the_model_in_use_is_named(default: ObjectsOperator) -> None:
    assert default.model_versions() == {"objects": "nudenet-320n@3.4.2"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"confidense": 0.3}, r"unknown key 'confidense' \(did you mean 'confidence'\?\)"),
        ({"confidence": 1.5}, "key 'confidence'"),
        ({"input_size": 300}, "key 'input_size'.*multiple of 32"),
    ],
)
def test_wrong_settings_are_refused_by_name(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(OperatorError, match=f"operator 'objects': .*{complaint}"):
        ObjectsOperator(options, CPU, load_catalog())


def test_an_unknown_model_is_answered_with_the_nearest() -> None:
    with pytest.raises(ModelError, match="did you mean 'nudenet-320n'"):
        ObjectsOperator({"model": "nudenet-320"}, CPU, load_catalog())


def test_an_export_of_one_size_refuses_another(tmp_path: Path) -> None:
    import onnx

    bundled = load_catalog().get("nudenet-320n")
    export = onnx.load(bundled.verified_path())
    for axis, length in ((2, 320), (3, 320)):
        export.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = length
    path = tmp_path / "fixed.onnx"
    onnx.save(export, path)
    card = ModelCard.model_validate(
        bundled.model_dump()
        | {
            "name": "fixed",
            "weights": str(path),
            "sha256": sha256_of(path),
            "network": "onnx-graph",
        }
    )
    made = ObjectsOperator({"model": "fixed", "input_size": 640}, CPU, Catalog([card]))
    with pytest.raises(OperatorError, match="exported for 320x320 pixels only"):
        made.setup()
