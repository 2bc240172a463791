"""Load object detectors: whatever Ultralytics trains or exports, from a catalogue entry.

Every kind of file ends in the same `Detector`, so nothing that uses one knows where it came from.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import nn

from models.catalog import ModelCard
from models.detection_network import Detector, first_output
from models.device import Device
from models.errors import ModelError
from models.one_pass import ConvolutionThen
from models.onnx_graph import OnnxModule
from models.state_dicts import load_weights

SUFFIXES = {"onnx": ".onnx", "torchscript": ".torchscript", "engine": ".engine"}
"""How the files of each exported format end."""

READABLE_TASKS = ("detect", "segment", "pose")
"""Ultralytics' tasks whose output begins with upright boxes; masks and key points are ignored."""


def load_detector(card: ModelCard, device: Device) -> Detector:
    """Load the detector that `card` describes; its weights are verified first.

    `network` in a catalogue entry of format `onnx` may name an Ultralytics configuration
    (`yolov8n.yaml`), into whose torch network the ONNX weights are loaded, or `onnx-graph` to run
    the graph itself in torch; without it the file runs in ONNX Runtime. The other formats need
    none.

    Raises:
        ModelError: it is no detector, cannot be verified, is not trusted, or cannot be loaded.
    """
    if card.task != "detection":
        raise ModelError(
            f"model '{card.full_name}' is for {card.task}, not for detection; name another"
        )
    if card.format == "ultralytics-pt" and not card.trust:
        raise ModelError(
            f"model '{card.full_name}': a .pt file runs code of its author's when it is loaded; "
            "export it to ONNX or TorchScript (yolo export), or set trust = true in its catalogue "
            "entry if you know where the file comes from"
        )
    if card.format == "torch-state-dict":
        raise ModelError(
            f"model '{card.full_name}': detectors are not loaded from bare state dicts; export to "
            "ONNX or TorchScript (yolo export)"
        )
    path = card.verified_path()
    try:
        return _load(card, path, device)
    except (ModelError, MemoryError):
        raise
    except Exception as error:
        raise ModelError(
            f"model '{card.full_name}': '{path}' cannot be loaded as {card.format} "
            f"({type(error).__name__}: {error}); check 'format' and 'network' in its catalogue "
            "entry"
        ) from error


def _load(card: ModelCard, path: Path, device: Device) -> Detector:
    if card.format == "ultralytics-pt":
        return _checkpoint(card, path, device)
    if card.format == "onnx" and card.network == "onnx-graph":
        return _graph(card, path, device)
    if card.format == "onnx" and card.network:
        return _transplanted(card, path, device)
    return _exported(card, path, device)


def _transplanted(card: ModelCard, path: Path, device: Device) -> Detector:
    """Ultralytics' own network with the weights out of an ONNX export of it.

    An export keeps the parameters' names, so that the weights of the fused network can be put back
    where they came from. The boxes differ from ONNX Runtime's by less than 0.001 pixel.
    """
    from models.quiet_ultralytics import DetectionModel

    exported = onnx.load(path)
    weights = {
        item.name: torch.from_numpy(numpy_helper.to_array(item).copy())
        for item in exported.graph.initializer
        if item.name.startswith("model.")
    }
    names = _export_names(exported) or dict(card.labels)
    network = DetectionModel(card.network, nc=len(names), verbose=False).eval()
    network = network.fuse(verbose=False)
    load_weights(card, network, weights)
    return _in_torch(card, network, device, names)


def _export_names(exported: onnx.ModelProto) -> dict[int, str]:
    """Class names that Ultralytics writes into an export's metadata, as a Python literal."""
    for item in exported.metadata_props:
        if item.key == "names":
            return {int(index): str(name) for index, name in ast.literal_eval(item.value).items()}
    return {}


def _checkpoint(card: ModelCard, path: Path, device: Device) -> Detector:
    """A trusted Ultralytics checkpoint."""
    from models.quiet_ultralytics import DetectionModel, load_checkpoint

    network, _ = load_checkpoint(path)
    if not isinstance(network, DetectionModel) or network.task not in READABLE_TASKS:
        raise ModelError(
            f"model '{card.full_name}': '{path}' holds a network for '{network.task}', not a "
            "detector of upright boxes"
        )
    if not hasattr(network.model[-1], "dfl"):
        raise ModelError(
            f"model '{card.full_name}': '{path}' holds a network whose head is a "
            f"{type(network.model[-1]).__name__}, which is not supported; use a YOLO detector"
        )
    names = {int(index): str(name) for index, name in network.names.items()}
    size = network.args.get("imgsz") if isinstance(network.args, dict) else None
    trained = (size, size) if isinstance(size, int) else None
    return _in_torch(card, network.fuse(verbose=False).eval(), device, names, trained)


def _graph(card: ModelCard, path: Path, device: Device) -> Detector:
    """An ONNX graph run in torch, on any device; coordinates want full precision."""
    exported = onnx.load(path, load_external_data=False)
    shape = exported.graph.input[0].type.tensor_type.shape.dim
    batch, height, width = (shape[axis].dim_value for axis in (0, 2, 3))
    fixed = height > 0 and width > 0
    graph = OnnxModule(path).eval().to(device.torch_device)
    if batch > 1:
        raise ModelError(
            f"model '{card.full_name}': '{path}' takes batches of exactly {batch}; export it with "
            "dynamic=True, or leave 'network' out to run it in ONNX Runtime"
        )

    def one_by_one(images: torch.Tensor) -> Any:
        return torch.cat([first_output(graph(image)) for image in torch.split(images, 1)])

    return Detector(
        card,
        device,
        one_by_one if batch == 1 else graph,
        torch.float32,
        _export_names(exported),
        input_size=(height, width) if fixed else None,
        fixed_size=fixed,
        memory_format=torch.channels_last,
        recordable=True,
    )


def _exported(card: ModelCard, path: Path, device: Device) -> Detector:
    """ONNX Runtime, TorchScript or TensorRT through Ultralytics' own runtime for exports.

    It reads sizes and class names from the export and feeds exports of a fixed batch in pieces.
    """
    from models.quiet_ultralytics import AutoBackend

    if path.suffix != SUFFIXES[card.format]:
        raise ModelError(
            f"model '{card.full_name}': '{path}' must end in '{SUFFIXES[card.format]}', by which "
            f"Ultralytics recognises the format {card.format}; rename it or correct 'format'"
        )
    half = device.dtype == torch.float16
    runtime = AutoBackend(path, device=device.torch_device, fp16=half, verbose=False)
    if runtime.task not in (None, *READABLE_TASKS):  # None: the file does not say
        raise ModelError(
            f"model '{card.full_name}': '{path}' was exported for '{runtime.task}', not for the "
            "detection of upright boxes"
        )
    size = getattr(runtime, "imgsz", None)
    return Detector(
        card,
        device,
        runtime,
        torch.float16 if runtime.fp16 else torch.float32,
        # Without names in the file it invents 999 of them.
        {int(i): str(n) for i, n in runtime.names.items()} if runtime.metadata.get("names") else {},
        input_size=(int(size[0]), int(size[1])) if size else None,
        fixed_size=bool(size) and not getattr(runtime, "dynamic", False),
        end_to_end=bool(getattr(runtime, "end2end", False)),
    )


def _in_torch(
    card: ModelCard,
    network: Any,
    device: Device,
    names: dict[int, str],
    trained: tuple[int, int] | None = None,
) -> Detector:
    """A YOLO network in its device and dtype, with the arithmetic of boxes left in float32.

    bfloat16 has eight significant bits: coordinates computed in it would be off by a pixel or two
    at 320 pixels.
    """
    from models.quiet_ultralytics import Conv

    network.to(device.torch_device, device.dtype, memory_format=torch.channels_last)
    for part in network.modules():
        if (
            isinstance(part, Conv)
            and not hasattr(part, "bn")  # else it normalises before the activation
            and type(part.conv) is nn.Conv2d
            and type(part.act) is nn.SiLU
        ):
            part.conv, part.act = ConvolutionThen(part.conv, "silu"), nn.Identity()
    head = network.model[-1]
    decode = head._inference
    # Ultralytics keeps the anchors of the last shape only. A recorded CUDA graph goes on reading
    # the anchors that it was recorded with, so those of every shape are kept; they are small.
    anchors: dict[tuple[Any, ...], tuple[torch.Tensor, torch.Tensor]] = {}

    def decode_in_float32(predictions: dict[str, Any]) -> Any:
        exact = {
            name: value.float() if isinstance(value, torch.Tensor) else value
            for name, value in predictions.items()
        }
        # Only the shapes of the feature maps are read, to lay out the anchors.
        exact["feats"] = [
            feature.new_zeros((), dtype=torch.float32).expand(feature.shape)
            for feature in predictions["feats"]
        ]
        features = exact["feats"]
        shapes = (*(feature.shape[2:] for feature in features), features[0].device)
        if shapes in anchors:
            head.anchors, head.strides = anchors[shapes]
            head.shape = features[0].shape
        output = decode(exact)
        anchors[shapes] = (head.anchors, head.strides)
        return output

    head.dfl.float()
    head._inference = decode_in_float32
    return Detector(
        card,
        device,
        network,
        device.dtype,
        names,
        input_size=trained,
        end_to_end=bool(head.end2end),
        memory_format=torch.channels_last,
        recordable=True,
    )
