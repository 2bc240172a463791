"""Detectors: the same boxes as ONNX Runtime, in every format, batched or not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from models.catalog import Catalog, ModelCard
from models.detectors import load_detector
from models.device import Device
from models.errors import ModelError
from models.resizing import resized
from models.suppression import suppress
from models.weights import sha256_of


@pytest.fixture(scope="module")
def pictures(photos: dict[str, torch.Tensor]) -> torch.Tensor:
    """The photos squeezed into one uint8 batch; only equality is tested here."""
    return torch.stack([resized(pixels, 320, 320) for pixels in photos.values()])


@pytest.fixture(scope="module")
def onnx_runtime_output(catalog: Catalog, pictures: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(
        catalog.get("nudenet-320n").verified_path(), providers=["CPUExecutionProvider"]
    )
    found: list[np.ndarray[Any, Any]] = session.run(
        None, {"images": pictures.numpy() / np.float32(255)}
    )
    return torch.from_numpy(found[0])


def variant(catalog: Catalog, **changes: Any) -> ModelCard:
    """NudeNet's card as a user might have written it; a new file brings its own digest."""
    if "weights" in changes:
        changes["sha256"] = sha256_of(Path(changes["weights"]))
    return ModelCard.model_validate(catalog.get("nudenet-320n").model_dump() | changes)


@pytest.fixture(scope="module")
def exports(catalog: Catalog, float32: Device, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NudeNet saved as an Ultralytics checkpoint and as TorchScript."""
    folder = tmp_path_factory.mktemp("exports")
    network: Any = load_detector(catalog.get("nudenet-320n"), float32)._network
    network.model[-1].__dict__.pop("_inference")
    network.names = dict(catalog.get("nudenet-320n").labels)
    network.args = {"imgsz": 320}
    network.task = "detect"
    torch.save({"model": network, "train_args": {"imgsz": 320}}, folder / "nudenet.pt")
    network.model[-1].export = True
    with torch.no_grad():
        script = torch.jit.trace(network, torch.zeros(1, 3, 320, 320), check_trace=False)
    torch.jit.save(script, folder / "nudenet.torchscript")
    return folder


def test_the_default_detector_agrees_with_onnx_runtime_to_a_hundredth_of_a_pixel(
    catalog: Catalog, float32: Device, pictures: torch.Tensor, onnx_runtime_output: torch.Tensor
) -> None:
    output = load_detector(catalog.get("nudenet-320n"), float32).raw(pictures)
    assert output.shape == onnx_runtime_output.shape
    assert (output[:, :4] - onnx_runtime_output[:, :4]).abs().max() < 0.01
    assert (output[:, 4:] - onnx_runtime_output[:, 4:]).abs().max() < 1e-4


def test_in_bfloat16_boxes_move_by_less_than_a_few_pixels(
    catalog: Catalog, bfloat16: Device, pictures: torch.Tensor, onnx_runtime_output: torch.Tensor
) -> None:
    detector = load_detector(catalog.get("nudenet-320n"), bfloat16)
    reference = suppress(onnx_runtime_output, 18, 0.4, 0.45, 300)
    for found, expected in zip(detector.detect(pictures, 0.4), reference, strict=True):
        assert found.classes.tolist() == expected.classes.tolist()
        assert found.corners.dtype == torch.float32
        assert torch.allclose(found.corners, expected.corners, atol=3.0)
        assert torch.allclose(found.scores, expected.scores, atol=0.05)


def test_a_picture_is_seen_alike_alone_and_in_a_batch(
    catalog: Catalog, float32: Device, pictures: torch.Tensor
) -> None:
    detector = load_detector(catalog.get("nudenet-320n"), float32)
    together = detector.detect(pictures, 0.2)
    assert sum(len(boxes) for boxes in together) >= 4
    for picture, expected in zip(pictures, together, strict=True):
        (alone,) = detector.detect(picture[None], 0.2)
        assert alone.classes.tolist() == expected.classes.tolist()
        assert torch.allclose(alone.corners, expected.corners, atol=0.01)


@pytest.mark.parametrize("network", [None, "onnx-graph"])
def test_any_onnx_detector_runs_as_it_is(
    catalog: Catalog,
    float32: Device,
    pictures: torch.Tensor,
    onnx_runtime_output: torch.Tensor,
    network: str | None,
) -> None:
    detector = load_detector(variant(catalog, network=network, labels={}), float32)
    detector.check((320, 320))
    assert detector.labels == catalog.get("nudenet-320n").labels
    assert torch.allclose(detector.raw(pictures), onnx_runtime_output, atol=0.01)


def test_a_torchscript_detector_finds_the_same(
    catalog: Catalog,
    float32: Device,
    pictures: torch.Tensor,
    onnx_runtime_output: torch.Tensor,
    exports: Path,
) -> None:
    card = variant(
        catalog, weights=str(exports / "nudenet.torchscript"), format="torchscript", network=None
    )
    detector = load_detector(card, float32)
    detector.check((320, 320))
    assert torch.allclose(detector.raw(pictures), onnx_runtime_output, atol=0.01)


def test_a_trusted_checkpoint_finds_the_same(
    catalog: Catalog,
    float32: Device,
    pictures: torch.Tensor,
    onnx_runtime_output: torch.Tensor,
    exports: Path,
) -> None:
    card = variant(
        catalog,
        weights=str(exports / "nudenet.pt"),
        format="ultralytics-pt",
        network=None,
        labels={},
        input_size=None,
        trust=True,
    )
    detector = load_detector(card, float32)
    assert detector.labels == catalog.get("nudenet-320n").labels
    assert detector.input_size == (320, 320)
    assert torch.allclose(detector.raw(pictures), onnx_runtime_output, atol=0.01)


def test_an_untrusted_checkpoint_is_refused_before_it_is_opened(
    catalog: Catalog, float32: Device, tmp_path: Path
) -> None:
    (tmp_path / "evil.pt").write_bytes(b"whatever")
    card = variant(catalog, weights=str(tmp_path / "evil.pt"), format="ultralytics-pt")
    with pytest.raises(ModelError, match=r"runs code of its author's when it is loaded.*trust"):
        load_detector(card, float32)


def test_changed_weights_are_refused(catalog: Catalog, float32: Device) -> None:
    card = ModelCard.model_validate(catalog.get("nudenet-320n").model_dump() | {"sha256": "0" * 64})
    with pytest.raises(ModelError, match="promises 0000"):
        load_detector(card, float32)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"network": "yolov8s.yaml"}, "do not fit the network 'yolov8s.yaml'"),
        ({"network": "yolov99.yaml"}, "check 'format' and 'network'"),
        ({"options": {"chanels": "bgr"}}, r"unknown key 'chanels' \(did you mean 'channels'\?\)"),
        ({"task": "embedding"}, "is for embedding, not for detection"),
        ({"format": "torch-state-dict"}, "not loaded from bare state dicts"),
        ({"format": "torchscript", "network": None}, "must end in '.torchscript'"),
    ],
)
def test_a_card_that_does_not_fit_its_weights_is_refused_with_the_reason(
    catalog: Catalog, float32: Device, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ModelError, match=complaint):
        load_detector(variant(catalog, **changes), float32)


def test_labels_beyond_the_networks_classes_are_refused(catalog: Catalog, float32: Device) -> None:
    card = variant(catalog, network=None, labels=dict(enumerate("abcdefghijklmnopqrstuvwxyz")))
    with pytest.raises(ModelError, match="knows 18 classes, but has labels up to class 25"):
        load_detector(card, float32).check((320, 320))


def test_classes_without_a_label_are_not_reported(
    catalog: Catalog, float32: Device, pictures: torch.Tensor
) -> None:
    detector = load_detector(variant(catalog, labels={1: "face"}), float32)
    found = detector.detect(pictures, 0.2)
    assert {kind for boxes in found for kind in boxes.classes.tolist()} == {1}


def test_overlapping_boxes_of_one_class_become_one_and_images_do_not_compete() -> None:
    boxes = torch.tensor(
        [[50.0, 50, 20, 20, 0.9, 0], [51, 50, 20, 20, 0.8, 0], [51, 50, 20, 20, 0, 0.7]]
    )
    first, second = suppress(torch.stack([boxes.T, boxes.flip(0).T]), 2, 0.25, 0.5, 300)
    for found in (first, second):
        assert found.scores.tolist() == pytest.approx([0.9, 0.7])
        assert found.classes.tolist() == [0, 1]
        assert found.corners[0].tolist() == [40, 40, 60, 60]


def test_only_the_best_are_kept_when_there_are_too_many() -> None:
    centres = torch.arange(40.0) * 50
    boxes = torch.stack(
        [centres, centres, centres * 0 + 10, centres * 0 + 10, centres / 4000 + 0.4]
    )
    (found,) = suppress(boxes[None], 1, 0.25, 0.5, 3)
    assert found.scores.tolist() == pytest.approx([0.4 + i * 50 / 4000 for i in (39, 38, 37)])


def test_finished_boxes_of_end_to_end_networks_are_taken_as_they_are() -> None:
    rows = torch.tensor([[[1.0, 2, 30, 40, 0.5, 1], [1, 2, 30, 40, 0.9, 1], [0, 0, 9, 9, 0.1, 0]]])
    (found,) = suppress(rows, 80, 0.25, 0.5, 300, end_to_end=True)
    assert found.scores.tolist() == pytest.approx([0.9, 0.5])
    assert found.corners[0].tolist() == [1, 2, 30, 40]


def test_loading_a_detector_leaves_the_process_as_it_was() -> None:
    """In a fresh process: torch's threads, Pillow's own errors, and nothing on standard output."""
    program = """
import io, sys, torch, PIL.Image
torch.set_num_threads(1)
from models.catalog import load_catalog
from models.detectors import load_detector
from models.device import Device
device = Device(torch.device("cpu"), torch.float32)
detector = load_detector(load_catalog().get("nudenet-320n"), device)
detector.detect(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
assert torch.get_num_threads() == 1, torch.get_num_threads()
try:
    PIL.Image.open(io.BytesIO(b"no picture"))
except PIL.UnidentifiedImageError:
    pass
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == ""
