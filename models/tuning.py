"""Measures which runtime is fastest for a model on this machine, and whether it may be trusted.

Runtimes take turns on the same pictures, so that a machine that is busy for a while is so for all.
One that gives other vectors than torch in float32 is out of the question, however fast.
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from models.backend_choices import Choice
from models.catalog import ModelCard
from models.classifiers import ClassifierOptions
from models.device import Device
from models.embedders import EmbedderOptions
from models.errors import ModelError
from models.image_input import card_options
from models.image_network import ImageNetwork
from models.runtimes import Backend, available_backends

BATCHES = (1, 4, 16)
LEAST_GAIN = 1.1
"""How much faster than torch another runtime must be: less is within the noise."""
LEAST_COSINE = 0.999
LARGEST_CHANGE = 0.02
"""How far vectors may be from those of torch in float32: cosine, and the largest difference beside
the largest value. bfloat16, which is torch's own precision on many processors, is about as far."""


@dataclass(slots=True)
class Measured:
    """What one runtime did: images a second by batch size, or why it cannot be used."""

    images_per_second: dict[int, float] = field(default_factory=dict)
    refused: str = ""


@dataclass(slots=True)
class Tuned:
    """The outcome for one model. `skipped`: why there was nothing to choose."""

    card: ModelCard
    backend: Backend = "torch"
    measured: dict[Backend, Measured] = field(default_factory=dict)
    skipped: str = ""

    @property
    def choice(self) -> Choice:
        return Choice(
            self.card.full_name,
            self.backend,
            {
                name: {str(size): round(rate, 1) for size, rate in one.images_per_second.items()}
                for name, one in self.measured.items()
                if one.images_per_second
            },
        )


def tune(
    card: ModelCard,
    device: Device,
    *,
    batches: Sequence[int] = BATCHES,
    seconds: float = 1.0,
    backends: Sequence[Backend] | None = None,
) -> Tuned:
    """Measure `card` under each runtime that is installed.

    Args:
        device: the processor, in the precision that torch is to be measured in.
        seconds: for each runtime and batch size.

    Raises:
        ModelError: torch itself cannot run the model.
    """
    tuned = Tuned(card)
    if device.is_cuda:
        tuned.skipped = "other runtimes are for processors only"
    elif card.task not in ("embedding", "classification"):
        tuned.skipped = f"models for {card.task} run in torch only"
    elif card.format != "onnx":
        tuned.skipped = f"{card.format} runs in torch only; export it to ONNX to have a choice"
    if tuned.skipped:
        return tuned
    exact = _network(card, Device(device.torch_device, torch.float32), "torch")
    pictures = _pictures(max(batches), exact.input_size)
    wanted = exact.vectors(pictures)
    usable: dict[Backend, ImageNetwork] = {}
    for backend in backends or available_backends():
        measured = tuned.measured[backend] = Measured()
        try:
            network = _network(card, device, backend)
            measured.refused = difference(network.vectors(pictures), wanted)
        except ModelError as error:
            if backend == "torch":
                raise
            measured.refused = str(error)
        if backend == "torch" or not measured.refused:
            usable[backend] = network
    for size in batches:
        rates = _rates(
            {
                name: functools.partial(network.vectors, pictures[:size])
                for name, network in usable.items()
            },
            seconds,
        )
        for name, rate in rates.items():
            tuned.measured[name].images_per_second[size] = size * rate
    tuned.backend = fastest(tuned.measured)
    return tuned


def difference(found: torch.Tensor, wanted: torch.Tensor) -> str:
    """In what `found` is too far from `wanted` (both (N, width)); empty if it is not."""
    if found.shape != wanted.shape or not torch.isfinite(found).all():
        return f"gives {tuple(found.shape)}, or values that are no numbers"
    cosine = float(torch.nn.functional.cosine_similarity(found, wanted).min())
    change = float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-9))
    if cosine < LEAST_COSINE or change > LARGEST_CHANGE:
        return f"differs from torch in float32: cosine {cosine:.4f}, change {change:.3f}"
    return ""


def fastest(measured: dict[Backend, Measured]) -> Backend:
    """The runtime with the most images a second over all batch sizes (geometric mean), if that is
    clearly more than torch's."""

    def gain(name: Backend) -> float:
        base = measured["torch"].images_per_second
        rates = measured[name].images_per_second
        if measured[name].refused or not rates:
            return 0.0
        return math.exp(statistics.mean(math.log(rates[size] / base[size]) for size in base))

    best: Backend = max(measured, key=gain)
    return best if gain(best) >= LEAST_GAIN else "torch"


def _network(card: ModelCard, device: Device, backend: Backend) -> ImageNetwork:
    if card.task == "embedding":
        options = card_options(card, EmbedderOptions)
        return ImageNetwork(card, device, options, "embedding", options.pooling, backend=backend)
    return ImageNetwork(
        card, device, card_options(card, ClassifierOptions), "classification", backend=backend
    )


def _pictures(count: int, size: tuple[int, int]) -> torch.Tensor:
    """Smooth random pictures, uint8 (count, 3, height, width): more like photos than noise is."""
    generator = torch.Generator().manual_seed(4)
    coarse = torch.rand((count, 3, 8, 8), generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=False)
    return fine.clamp(0, 1).mul(255).to(torch.uint8)


def _rates(passes: dict[Backend, Callable[[], object]], seconds: float) -> dict[Backend, float]:
    """Passes a second of each, from the median of passes taken by turns."""
    times: dict[Backend, list[float]] = {name: [] for name in passes}
    for run in passes.values():
        run()
    until = time.perf_counter() + seconds * len(passes)
    while time.perf_counter() < until or not all(len(taken) >= 3 for taken in times.values()):
        for name, run in passes.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    return {name: 1 / statistics.median(taken) for name, taken in times.items()}
