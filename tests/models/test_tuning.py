"""Promises of tuning: only a runtime that gives the same is chosen, and only where measured."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from models import backend_choices
from models.backend_choices import Choice, chosen_backend, load_choices, save_choices
from models.catalog import ModelCard
from models.classifiers import Classifier
from models.device import Device
from models.errors import ModelError
from models.runtimes import BACKENDS, RuntimeModule, available_backends
from models.tuning import Measured, difference, fastest, tune

CPU = Device(torch.device("cpu"), torch.float32)


@pytest.fixture
def card(tmp_path: Path) -> ModelCard:
    """A classifier of two labels: a convolution over a picture of 32 pixels, and a mean."""
    weights = np.random.default_rng(3).normal(0, 0.2, (2, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["images", "w"], ["features"], kernel_shape=[3, 3]),
            helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["scores"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "tiny.onnx"
    onnx.save(model, path)
    return ModelCard(
        name="tiny",
        version="1",
        task="classification",
        weights=str(path),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        licence="CC0-1.0",
        format="onnx",
        labels={0: "one", 1: "other"},
        input_size=(32, 32),
    )


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IMAGEWIRE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_every_runtime_that_is_installed_is_measured_and_gives_the_same(card: ModelCard) -> None:
    tuned = tune(card, CPU, batches=(1, 2), seconds=0.05)
    assert set(tuned.measured) == set(available_backends()) >= {"torch", "onnxruntime"}
    for one in tuned.measured.values():
        assert one.refused == ""
        assert set(one.images_per_second) == {1, 2}
        assert all(rate > 0 for rate in one.images_per_second.values())
    assert tuned.backend in BACKENDS


@pytest.mark.parametrize("backend", [one for one in available_backends() if one != "torch"])
def test_what_was_chosen_is_used_and_sees_the_same(card: ModelCard, backend: str) -> None:
    pictures = [torch.randint(0, 256, (40, 50, 3), dtype=torch.uint8) for _ in range(3)]
    plain = Classifier(card, CPU)
    wanted = plain.scores(plain.batch(pictures))
    save_choices({card.sha256: Choice("tiny@1", backend)})  # type: ignore[arg-type]
    assert chosen_backend(card.sha256) == backend
    exact = Classifier(card, CPU)
    assert torch.allclose(exact.scores(exact.batch(pictures)), wanted, atol=1e-5)
    lower = Classifier(card, Device(torch.device("cpu"), torch.bfloat16))
    assert torch.allclose(lower.scores(lower.batch(pictures)), wanted, rtol=0.01)


def test_a_runtime_that_gives_something_else_is_refused_however_fast() -> None:
    wanted = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert difference(wanted + 0.001, wanted) == ""
    assert "cosine" in difference(wanted.flip(1), wanted)
    assert "numbers" in difference(wanted * torch.nan, wanted)
    assert "(2, 1)" in difference(wanted[:, :1], wanted)
    measured = {
        "torch": Measured({1: 10.0}),
        "onnxruntime": Measured({1: 99.0}, refused="differs"),
        "openvino": Measured({1: 12.0}),
    }
    assert fastest(measured) == "openvino"  # type: ignore[arg-type]


def test_a_gain_within_the_noise_is_none() -> None:
    close = {"torch": Measured({1: 100.0, 8: 100.0}), "onnxruntime": Measured({1: 130.0, 8: 90.0})}
    assert fastest(close) == "torch"  # type: ignore[arg-type]


def test_choices_hold_for_the_machine_and_versions_that_they_were_made_on(
    card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_choices({card.sha256: Choice("tiny@1", "onnxruntime")})
    save_choices({"0" * 64: Choice("second@1", "torch")})
    assert set(load_choices()) == {card.sha256, "0" * 64}
    monkeypatch.setattr(backend_choices, "machine", lambda: "another")
    assert load_choices() == {}
    assert chosen_backend(card.sha256) == "torch"


def test_a_file_that_is_broken_is_said_and_left_aside(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.mkdir()
    (cache / "backends.json").write_bytes(b'{"machine": 3')
    with caplog.at_level(logging.WARNING):
        assert chosen_backend("0" * 64) == "torch"
    assert "models tune" in caplog.text


def test_models_without_a_choice_say_why(card: ModelCard) -> None:
    reader = card.model_copy(update={"task": "text-detection"})
    assert "torch only" in tune(reader, CPU).skipped
    script = card.model_copy(update={"format": "torchscript"})
    assert "ONNX" in tune(script, CPU).skipped
    gpu = Device(torch.device("cuda:0"), torch.float16)
    assert "processors" in tune(card, gpu).skipped


def test_a_file_that_a_runtime_cannot_load_is_an_error_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="onnxruntime"):
        RuntimeModule(tmp_path / "no.onnx", "onnxruntime")
    with pytest.raises(ModelError, match="no runtime"):
        RuntimeModule(tmp_path / "no.onnx", "torch")


def test_the_file_can_be_read_by_people(card: ModelCard, cache: Path) -> None:
    path = save_choices({card.sha256: Choice("tiny@1", "torch", {"torch": {"1": 10.5}})})
    assert path == cache / "backends.json"
    content = msgspec.json.decode(path.read_bytes())
    assert content["choices"][card.sha256]["images_per_second"] == {"torch": {"1": 10.5}}
