"""Build the torch network of an encoder or classifier from its catalogue entry.

A state dict does not say which network it belongs to, so `network` names it: `efficientnet-lite0`
to `efficientnet-lite4`, `timm:<architecture>`, `torchvision:<architecture>` or
`open_clip:<architecture>`. ONNX and TorchScript files carry their network with them. timm and
open_clip are optional and are imported only when a catalogue entry asks for them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.catalog import ModelCard
from models.efficientnet_lite import EfficientNetFeatures, fused
from models.errors import ModelError
from models.onnx_graph import OnnxModule
from models.state_dicts import load_weights

CLASSIFIER_LAYERS = ("fc", "classifier", "heads", "head")
"""What torchvision's architectures call their last part, which an encoder does without."""

INSTALL_NAMES = {"timm": "timm", "open_clip": "open_clip_torch"}
"""Import name to the name of the package on PyPI."""


def build_network(card: ModelCard, path: Path, features: bool) -> nn.Module:
    """The network of `card` with the weights in `path`, in eval mode, float32, on the CPU.

    Args:
        features: an encoder is wanted, so that a classifying last layer is left out. Files that
            carry their own network are taken as they are.

    Raises:
        ModelError: the network is unknown, its package is missing, or the weights do not fit.
    """
    try:
        network = _built(card, path, features).eval()
    except (ModelError, MemoryError):
        raise
    except Exception as error:
        raise ModelError(
            f"model '{card.full_name}': '{path}' cannot be loaded as {card.format}"
            f"{f' into {card.network}' if card.network else ''} ({type(error).__name__}: {error}); "
            "check 'format' and 'network' in its catalogue entry"
        ) from error
    for parameter in network.parameters():
        parameter.requires_grad = False
    return network


def _built(card: ModelCard, path: Path, features: bool) -> nn.Module:
    if card.format == "onnx":
        return OnnxModule(path)
    if card.format == "torchscript":
        script: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        return script
    if card.format != "torch-state-dict":
        raise ModelError(
            f"model '{card.full_name}': format '{card.format}' is for detectors; give ONNX, "
            "TorchScript or a state dict"
        )
    family, _, architecture = (card.network or "").partition(":")
    if family in BUILDERS and architecture:
        return BUILDERS[family](card, architecture, _state_dict(card, path), features)
    if family.startswith("efficientnet-lite"):
        return _efficientnet_lite(card, family, _state_dict(card, path), features)
    raise ModelError(
        f"model '{card.full_name}': a state dict needs the name of its network, but 'network' is "
        f"'{card.network or ''}'; write efficientnet-lite0, timm:<architecture>, "
        "torchvision:<architecture> or open_clip:<architecture>"
    )


def _state_dict(card: ModelCard, path: Path) -> dict[str, Tensor]:
    """Tensors only: nothing in the file is executed."""
    weights = torch.load(path, map_location="cpu", weights_only=True)
    for wrapping in ("state_dict", "model"):
        if isinstance(weights, Mapping) and isinstance(weights.get(wrapping), Mapping):
            weights = weights[wrapping]
    if not isinstance(weights, Mapping):
        raise ModelError(
            f"model '{card.full_name}': '{path}' holds a {type(weights).__name__}, not a state dict"
        )
    return {name.removeprefix("module."): value for name, value in weights.items()}


def _fitted(card: ModelCard, network: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """Load `weights`, which may hold a last layer that an encoder does without."""
    load_weights(card, network, weights, spare=CLASSIFIER_LAYERS)
    return network


def _package(card: ModelCard, name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"model '{card.full_name}' needs the Python package '{name}', which is not installed "
            f"here; run: pip install {INSTALL_NAMES.get(name, name)}"
        ) from error


def _efficientnet_lite(
    card: ModelCard, name: str, weights: dict[str, Tensor], features: bool
) -> nn.Module:
    package = _package(card, "efficientnet_lite_pytorch")
    network: nn.Module = package.EfficientNet.from_name(name)
    load_weights(card, network, weights)
    network = fused(network.eval())
    return EfficientNetFeatures(network) if features else network


def _class_count(weights: dict[str, Tensor]) -> dict[str, int]:
    """How many classes the last layer in `weights` knows, as a keyword argument, if it has one."""
    last = [
        value
        for name, value in weights.items()
        if name.split(".")[0] in CLASSIFIER_LAYERS and name.endswith(".weight") and value.ndim == 2
    ]
    return {"num_classes": len(last[-1])} if last else {}


def _timm(
    card: ModelCard, architecture: str, weights: dict[str, Tensor], features: bool
) -> nn.Module:
    timm = _package(card, "timm")
    classes = {"num_classes": 0} if features else _class_count(weights)
    return _fitted(card, timm.create_model(architecture, pretrained=False, **classes), weights)


def _torchvision(
    card: ModelCard, architecture: str, weights: dict[str, Tensor], features: bool
) -> nn.Module:
    from torchvision.models import get_model

    network: nn.Module = get_model(architecture, weights=None, **_class_count(weights))
    _fitted(card, network, weights)
    if features:
        for layer in CLASSIFIER_LAYERS:
            if hasattr(network, layer):
                setattr(network, layer, nn.Identity())
                break
    return network


class _ClipImageTower(nn.Module):
    """The half of a CLIP model that looks at pictures."""

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.visual = clip.visual

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.visual(images)
        return features


def _open_clip(
    card: ModelCard, architecture: str, weights: dict[str, Tensor], features: bool
) -> nn.Module:
    if not features:
        raise ModelError(
            f"model '{card.full_name}': an open_clip model is an encoder; its task is 'embedding'"
        )
    open_clip = _package(card, "open_clip")
    clip = open_clip.create_model(architecture, pretrained=None, load_weights=False)
    return _ClipImageTower(_fitted(card, clip, weights))


BUILDERS: dict[str, Callable[[ModelCard, str, dict[str, Tensor], bool], nn.Module]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "open_clip": _open_clip,
}
