"""An encoder or classifier on its device: pictures in, one float32 vector for each picture out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from models.backend_choices import chosen_backend
from models.catalog import ModelCard, Task
from models.cuda_graphs import GraphedNetwork
from models.device import Device
from models.errors import ModelError
from models.image_input import IMAGENET_SIZE, ImageInput
from models.networks import build_network
from models.runtimes import Backend, RuntimeModule

PREPARED = 64
"""Up to this batch size, passes are recorded at the start on a GPU, so that none waits for it."""


class ImageNetwork:
    """A network that gives one vector for each picture. One instance belongs to one thread.

    Attributes:
        card: its catalogue entry.
        input_size: (height, width) in pixels.
        resized_to: (height, width) that pictures are brought to before the middle is cut out.
        width: length of the vectors.
    """

    def __init__(
        self,
        card: ModelCard,
        device: Device,
        form: ImageInput,
        task: Task,
        pooling: str = "first",
        backend: Backend | None = None,
    ) -> None:
        """Load the network; its weights are verified first, and it is tried on an empty picture.

        Args:
            task: what it is wanted for, which must be the card's.
            pooling: `first` or `mean`: of networks that give a vector for each patch.
            backend: what runs it, if it is ONNX on a processor; what `imagewire models tune` chose
                when `None`.

        Raises:
            ModelError: it is for something else, cannot be verified or loaded, or fails.
        """
        if card.task != task:
            raise ModelError(
                f"model '{card.full_name}' is for {card.task}, not for {task}; name another"
            )
        self.card = card
        self.input_size = card.input_size or (IMAGENET_SIZE, IMAGENET_SIZE)
        self.resized_to = form.resized_to(self.input_size)
        self._form = form
        self._pooling = pooling
        self._device = device
        if backend is None:
            backend = chosen_backend(card.sha256)
        if backend != "torch" and card.format == "onnx" and not device.is_cuda:
            exact = device.dtype == torch.float32
            network: Any = RuntimeModule(card.verified_path(), backend, exact)
            self._device = device = Device(device.torch_device, torch.float32)
        else:
            network = build_network(card, card.verified_path(), features=task == "embedding")
        self._network = network.to(device.torch_device).to(form.dtype(device))
        if form.layout == "nchw":
            self._network = self._network.to(memory_format=torch.channels_last)
        self._graphed = GraphedNetwork(self._forward, device.torch_device)
        self.width = self._tried()
        self._graphed.prepare((3, *self.input_size), torch.uint8, PREPARED)

    def batch(self, pictures: Sequence[torch.Tensor]) -> torch.Tensor:
        """Pictures (uint8 RGB, (H, W, 3), any sizes) as a uint8 batch (N, 3, height, width)."""
        return self._form.batch(pictures, self.input_size)

    @torch.inference_mode()
    def vectors(self, images: torch.Tensor) -> torch.Tensor:
        """One forward pass.

        Args:
            images: uint8 RGB, shape (N, 3, height, width), as `batch` makes them; on any device.

        Returns:
            float32, shape (N, width), on the network's device.
        """
        return self._graphed(images)

    def _forward(self, images: torch.Tensor) -> torch.Tensor:
        output = self._network(self._form.normalised(images, self._device))
        while isinstance(output, (tuple, list)):
            output = output[0]
        if not isinstance(output, torch.Tensor):
            raise ModelError(
                f"model '{self.card.full_name}' gives a {type(output).__name__}, not a tensor; "
                "export it so that its first output is one vector for each picture"
            )
        output = output.float()
        if output.ndim == 4:
            return output.mean((2, 3))
        if output.ndim == 3:
            return output.mean(1) if self._pooling == "mean" else output[:, 0]
        return output

    def _tried(self) -> int:
        """The length of the vector of an empty picture."""
        height, width = self.input_size
        try:
            found = self.vectors(torch.zeros((1, 3, height, width), dtype=torch.uint8))
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"model '{self.card.full_name}' fails on an empty picture of {height}x{width} "
                f"pixels ({type(error).__name__}: {error}); check 'input_size' and 'options' in "
                "its catalogue entry"
            ) from error
        if found.ndim != 2 or len(found) != 1:
            raise ModelError(
                f"model '{self.card.full_name}' gives an output of shape {tuple(found.shape)} for "
                "one picture, not one vector; check 'network' in its catalogue entry"
            )
        return found.shape[1]
