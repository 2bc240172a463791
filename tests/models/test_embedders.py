"""Encoders: near pictures become near points, whatever network makes them."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model

from models.catalog import Catalog, ModelCard
from models.device import Device
from models.embedders import Embedder, load_embedder
from models.errors import ModelError
from models.resizing import resized
from models.weights import sha256_of


@pytest.fixture(scope="module")
def embedder(catalog: Catalog, float32: Device) -> Embedder:
    return load_embedder(catalog.get("efficientnet-lite0"), float32)


def card_of(path: Path, **changes: Any) -> ModelCard:
    entry = {
        "name": "own",
        "version": "1",
        "task": "embedding",
        "weights": str(path),
        "sha256": sha256_of(path),
        "licence": "MIT",
        "format": "torch-state-dict",
    }
    return ModelCard.model_validate(entry | changes)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of torchvision's ResNet-18 with ten classes."""
    path = tmp_path_factory.mktemp("resnet") / "resnet18.pth"
    torch.manual_seed(0)
    torch.save(get_model("resnet18", weights=None, num_classes=10).state_dict(), path)
    return path


def edited(pixels: torch.Tensor) -> torch.Tensor:
    """A smaller, cropped and strongly compressed copy."""
    height, width = pixels.shape[:2]
    part = pixels[height // 10 :, : width * 9 // 10]
    small = resized(part, part.shape[0] // 2, part.shape[1] // 2)
    encoded = io.BytesIO()
    Image.fromarray(small.permute(1, 2, 0).numpy()).save(encoded, "JPEG", quality=40)
    return torch.from_numpy(np.array(Image.open(encoded)))


def test_vectors_have_unit_length(embedder: Embedder, photos: dict[str, torch.Tensor]) -> None:
    vectors = embedder.embed(embedder.batch(list(photos.values())))
    assert vectors.shape == (len(photos), embedder.dimension) == (5, 1280)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(5), atol=1e-5)


def test_an_edited_copy_is_nearer_than_every_other_photo(
    embedder: Embedder, photos: dict[str, torch.Tensor]
) -> None:
    originals = embedder.embed(embedder.batch(list(photos.values())))
    copies = embedder.embed(embedder.batch([edited(pixels) for pixels in photos.values()]))
    similarity = copies @ originals.T
    assert similarity.argmax(1).tolist() == list(range(len(photos)))
    others = similarity[~torch.eye(len(photos), dtype=torch.bool)]
    assert similarity.diagonal().min() > others.max() + 0.2


def test_bfloat16_keeps_the_direction(
    catalog: Catalog, bfloat16: Device, embedder: Embedder, photos: dict[str, torch.Tensor]
) -> None:
    images = embedder.batch(list(photos.values()))
    rough = load_embedder(catalog.get("efficientnet-lite0"), bfloat16).embed(images)
    assert rough.dtype == torch.float32
    assert (rough * embedder.embed(images)).sum(1).min() > 0.97


def test_the_batch_changes_nothing(embedder: Embedder, photos: dict[str, torch.Tensor]) -> None:
    images = embedder.batch(list(photos.values()))
    alone = torch.cat([embedder.embed(image[None]) for image in images])
    assert torch.allclose(alone, embedder.embed(images), atol=1e-5)


def test_a_torchvision_encoder_needs_only_a_catalogue_entry(
    float32: Device, resnet: Path, photos: dict[str, torch.Tensor]
) -> None:
    card = card_of(
        resnet, network="torchvision:resnet18", input_size=160, options={"crop_fraction": 0.875}
    )
    encoder = load_embedder(card, float32)
    assert encoder.dimension == 512
    assert encoder.batch(list(photos.values())).shape == (5, 3, 160, 160)


def test_a_torchscript_encoder_needs_only_a_catalogue_entry(
    float32: Device, tmp_path: Path, photos: dict[str, torch.Tensor]
) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 24, 16, 16), torch.nn.ReLU())
    path = tmp_path / "encoder.pt"
    torch.jit.save(torch.jit.trace(network, torch.zeros(1, 3, 64, 64)), path)
    encoder = load_embedder(card_of(path, format="torchscript", input_size=64), float32)
    vectors = encoder.embed(encoder.batch(list(photos.values())))
    assert vectors.shape == (5, 24)


@pytest.mark.parametrize(
    ("package", "network", "install"),
    [
        ("timm", "timm:resnet18", "pip install timm"),
        ("open_clip", "open_clip:ViT-B-32", "pip install open_clip_torch"),
    ],
)
def test_an_optional_package_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch,
    float32: Device,
    resnet: Path,
    package: str,
    network: str,
    install: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=f"needs the Python package '{package}'.*{install}"):
        load_embedder(card_of(resnet, network=network), float32)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"network": "torchvision:resnet34"}, "do not fit the network 'torchvision:resnet34'"),
        ({"network": "torchvision:resnet999"}, "check 'format' and 'network'"),
        ({"network": None}, "a state dict needs the name of its network"),
        ({"network": "torchvision:resnet18", "task": "detection"}, "not for embedding"),
        (
            {"network": "torchvision:resnet18", "options": {"crop_fracton": 1}},
            r"unknown key 'crop_fracton' \(did you mean 'crop_fraction'\?\)",
        ),
    ],
)
def test_a_card_that_does_not_fit_is_refused_with_the_reason(
    float32: Device, resnet: Path, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ModelError, match=complaint):
        load_embedder(card_of(resnet, **changes), float32)


def test_a_state_dict_that_would_run_code_is_refused(float32: Device, tmp_path: Path) -> None:
    path = tmp_path / "pickled.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(ModelError, match="cannot be loaded as torch-state-dict"):
        load_embedder(card_of(path, network="torchvision:resnet18"), float32)


def test_a_vector_without_direction_is_not_passed_off_as_one(
    float32: Device, tmp_path: Path
) -> None:
    network = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten())
    path = tmp_path / "encoder.pt"
    torch.jit.save(torch.jit.trace(network, torch.zeros(1, 3, 8, 8)), path)
    card = card_of(
        path, format="torchscript", input_size=8, options={"mean": [0, 0, 0], "std": [1, 1, 1]}
    )
    encoder = load_embedder(card, float32)
    vectors = encoder.embed(
        torch.tensor([0, 9], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 8, 8)
    )
    assert vectors[0].isnan().all()
    assert vectors[1].norm() == pytest.approx(1)
