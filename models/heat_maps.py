"""Where in a picture a network found what it says: heat maps by the library grad-cam.

A classifier is asked which places raise one of its scores (Grad-CAM: Selvaraju et al., 2017,
arXiv:1610.02391). A detector's boxes come out of a selection without a gradient, so it is asked
what its last feature maps are about (EigenCAM: Muhammad and Yeasin, 2020, arXiv:2008.00299). Both
look at activations inside the network, which only a network that runs in torch shows.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.catalog import ModelCard
from models.classifiers import ClassifierOptions
from models.detectors import load_detector
from models.device import Device
from models.errors import ModelError
from models.image_input import IMAGENET_SIZE, card_options
from models.networks import build_network
from models.onnx_graph import OnnxModule
from models.onnx_step import Step

HeatMap = NDArray[np.float32]
"""Shape (height, width) of the network's input; from 0 to 1."""

INSTALL = "pip install --no-deps grad-cam==1.5.7 ttach==0.0.3"
"""How the library is installed: its own dependencies would bring a second OpenCV."""

_POSITIONS = 1600
"""Most places of a feature map that EigenCAM takes: its decomposition grows with their cube. It is
what the second coarsest map of a YOLO has at 640 pixels."""


class CannotExplainError(ModelError):
    """There is no heat map of this network; the message says why."""


class ClassifierHeatMaps:
    """Grad-CAM of a classifier. One instance belongs to one thread.

    Attributes:
        labels: what it scores.
        resized_to: (height, width) that pictures are brought to before the middle is cut out.
    """

    def __init__(self, card: ModelCard, device: Device) -> None:
        """Load the network; its weights are verified first.

        Raises:
            CannotExplainError: the library is missing, or no layer has a map.
            ModelError: it is no classifier or cannot be loaded.
        """
        self._library = _library()
        if card.task != "classification":
            raise ModelError(f"model '{card.full_name}' is for {card.task}, not classification")
        self._form = card_options(card, ClassifierOptions)
        self.input_size = card.input_size or (IMAGENET_SIZE, IMAGENET_SIZE)
        self.resized_to = self._form.resized_to(self.input_size)
        self._columns = {label: column for column, label in card.labels.items()}
        self.labels = list(self._columns)
        self._device = device.torch_device
        exact = Device(device.torch_device, torch.float32)
        network = build_network(card, card.verified_path(), features=False)
        network.to(device.torch_device)
        self._network = _Scores(network, self._form, exact)
        example = torch.zeros((1, 3, *self.input_size), device=device.torch_device)
        self._layer = _last_map(network, lambda: self._network(example), card)

    def batch(self, pixels: Tensor) -> Tensor:
        """A picture, uint8 RGB (H, W, 3), as the network's input, uint8 (1, 3, height, width)."""
        return self._form.batch([pixels], self.input_size)

    def of(self, image: Tensor, label: str) -> HeatMap:
        """Which places raise the score of `label`.

        Args:
            image: uint8 RGB, shape (1, 3, height, width), as `batch` makes it.

        Raises:
            KeyError: there is no such label.
        """
        target = self._library.ClassifierOutputTarget(self._columns[label])
        values = image.to(self._device, torch.float32)
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            self._library.GradCAM(self._network, [self._layer]) as maps,
        ):
            found = maps(values, targets=[target])
        return _clean(found[0])

    def on_picture(self, found: HeatMap, pixels: Tensor) -> HeatMap:
        """A map of the network's input as one of the whole picture: (height, width) in its
        proportions or squeezed as it was, with 0 where the network did not look.

        Args:
            pixels: the picture, (H, W, 3).
        """
        height, width = self.input_size
        rows, columns = self.resized_to
        top, left = (rows - height) // 2, (columns - width) // 2
        if self._form.fit == "crop":
            # The middle of the picture, of the input's proportions, became rows x columns.
            own_height, own_width = pixels.shape[:2]
            scale = min(own_height / rows, own_width / columns)
            rows, columns = round(own_height / scale), round(own_width / scale)
            top, left = (rows - height) // 2, (columns - width) // 2
        whole = np.zeros((max(rows, height), max(columns, width)), np.float32)
        whole[top : top + height, left : left + width] = found
        return whole


class DetectorHeatMaps:
    """EigenCAM of a detector. One instance belongs to one thread."""

    def __init__(self, card: ModelCard, device: Device) -> None:
        """Load the network; its weights are verified first.

        Raises:
            CannotExplainError: the library is missing, or the network does not run in torch.
            ModelError: it is no detector or cannot be loaded.
        """
        self._library = _library()
        exact = Device(device.torch_device, torch.float32)
        detector = load_detector(card, exact)
        network = detector.module
        if network is None:
            raise CannotExplainError(
                f"model '{card.full_name}' runs in a runtime that does not show its layers; name "
                "its 'network' in the catalogue (an Ultralytics configuration, or onnx-graph)"
            )
        self.input_size = detector.input_size
        self._network = network
        self._exact = exact
        example = torch.zeros((1, 3, *self.input_size), device=device.torch_device)
        self._layers = _feature_maps(network, example, card)

    def of(self, image: Tensor) -> HeatMap:
        """What the detector's last feature maps are about.

        Args:
            image: uint8 RGB, shape (1, 3, height, width), both sides multiples of 32.
        """
        values = image.to(self._exact.torch_device, torch.float32) / 255
        model = _Anchored(self._network)
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            self._library.EigenCAM(model, self._layers) as maps,
        ):
            found = maps(values, targets=[None])
        return _clean(found[0])


class _Library:
    """What is used of grad-cam."""

    def __init__(self) -> None:
        library = importlib.import_module("pytorch_grad_cam")
        targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
        projections = importlib.import_module("pytorch_grad_cam.utils.svd_on_activations")
        self.GradCAM: Any = library.GradCAM
        self.ClassifierOutputTarget: Any = targets.ClassifierOutputTarget

        class SignedEigenCAM(library.EigenCAM):  # type: ignore[misc,name-defined]
            """A principal component has no sign of its own, and half of all maps would show what
            the network did not look at."""

            def get_cam_image(self, *arguments: Any, **named: Any) -> Any:
                activations = named["activations"] if "activations" in named else arguments[3]
                return projections.get_2d_projection_with_sign_correction(activations)

        self.EigenCAM: Any = SignedEigenCAM


def _library() -> _Library:
    try:
        return _Library()
    except ImportError as error:
        raise CannotExplainError(
            f"heat maps need the library grad-cam, which is not installed here ({error}); run: "
            f"{INSTALL}"
        ) from error


class _Anchored(nn.Module):
    """A network with at least one parameter: grad-cam asks the first one for its device."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        device = next((each.device for each in (*network.parameters(), *network.buffers())), None)
        self.anchor = nn.Parameter(torch.zeros(1, device=device), requires_grad=False)

    def forward(self, values: Tensor) -> Any:
        return self.network(values)


class _Scores(_Anchored):
    """A classifier from pixels, float (N, 3, height, width) counting 0 to 255, to (N, classes)."""

    def __init__(self, network: nn.Module, form: ClassifierOptions, device: Device) -> None:
        super().__init__(network)
        self._form = form
        self._device = device

    def forward(self, values: Tensor) -> Tensor:
        # The weights need no gradients; what they lead to does.
        values = values.detach().requires_grad_(torch.is_grad_enabled())
        output = self.network(self._form.normalised(values, self._device))
        while isinstance(output, (tuple, list)):
            output = output[0]
        scores: Tensor = output.float()
        return scores.mean((2, 3)) if scores.ndim == 4 else scores


class _Tap(nn.Module):
    """One step of an ONNX graph as a module, so that its result can be looked at."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self._compute = step.compute

    def forward(self, *values: Any) -> Any:
        found = self._compute(*values)
        # A copy: a later step may work in place.
        return found.clone() if isinstance(found, Tensor) else found


def _last_map(network: nn.Module, run: Any, card: ModelCard) -> nn.Module:
    """The last part of the network whose result still has a height and a width."""
    if isinstance(network, OnnxModule):
        return _onnx_map(network, run, card)
    found: list[nn.Module] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if _is_map(output):
            found.append(module)

    leaves = (each for each in network.modules() if not list(each.children()))
    with _hooked(leaves, note), torch.no_grad():
        run()
    if not found:
        raise _without_maps(card)
    return found[-1]


def _onnx_map(network: OnnxModule, run: Any, card: ModelCard) -> nn.Module:
    """The last step whose result has the shape of the last convolution's. ONNX convolutions have
    their channels first, and what follows one, an addition or an activation, keeps its shape."""
    shapes: list[tuple[int, tuple[int, ...]]] = []
    originals = [step.compute for step in network.steps]

    def noting(number: int) -> Any:
        def compute(*values: Any) -> Any:
            found = originals[number](*values)
            if _is_map(found):
                shapes.append((number, tuple(found.shape)))
            return found

        return compute

    try:
        for number, step in enumerate(network.steps):
            step.compute = noting(number)
        with torch.no_grad():
            run()
    finally:
        for step, original in zip(network.steps, originals, strict=True):
            step.compute = original
    last = next(
        (shape for number, shape in reversed(shapes) if network.steps[number].kind == "Conv"), None
    )
    if last is None:
        raise _without_maps(card)
    number = max(number for number, shape in shapes if shape == last)
    tap = _Tap(network.steps[number])
    network.steps[number].compute = tap
    return tap


def _feature_maps(network: nn.Module, example: Tensor, card: ModelCard) -> list[nn.Module]:
    """What the head of a detector looks at, without maps too fine to decompose."""
    layers = getattr(network, "model", None)
    sources = getattr(layers[-1], "f", None) if isinstance(layers, nn.Sequential) else None
    if not isinstance(layers, nn.Sequential) or not isinstance(sources, Sequence):
        return [_last_map(network, lambda: network(example), card)]
    candidates: list[nn.Module] = [layers[source] for source in sources]
    fitting: list[nn.Module] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if _is_map(output) and output.shape[2] * output.shape[3] <= _POSITIONS:
            fitting.append(module)

    with _hooked(candidates, note), torch.no_grad():
        network(example)
    # The finest maps are about edges more than about things.
    return fitting[-2:] or candidates[-1:]


@contextlib.contextmanager
def _hooked(modules: Any, note: Any) -> Iterator[None]:
    handles = [module.register_forward_hook(note) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_map(output: Any) -> bool:
    return (
        isinstance(output, Tensor)
        and output.ndim == 4
        and output.is_floating_point()
        and min(output.shape[2:]) > 1
    )


def _without_maps(card: ModelCard) -> CannotExplainError:
    return CannotExplainError(
        f"model '{card.full_name}' has no convolution whose result has a height and a width, so "
        "there is no heat map of it"
    )


def _clean(found: Any) -> HeatMap:
    """Without what is no number: of a picture of one colour there is nothing to tell."""
    return np.clip(np.nan_to_num(np.asarray(found, np.float32)), 0.0, 1.0)
