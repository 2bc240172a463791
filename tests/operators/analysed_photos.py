"""Real photos out of installed packages, as decoded frames."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from operators.frame import Frame, Origin

torch.set_num_threads(1)

FILES = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "zidane": ("ultralytics", "assets/zidane.jpg"),
    "bus": ("ultralytics", "assets/bus.jpg"),
}


@cache
def photo(name: str) -> torch.Tensor:
    """uint8 RGB pixels of shape (H, W, 3)."""
    package, relative = FILES[name]
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    path = Path(next(iter(spec.submodule_search_locations))) / relative
    return torch.from_numpy(np.array(Image.open(path).convert("RGB")))


def frame_of(pixels: torch.Tensor) -> Frame:
    return Frame("photo", "test", 0, Origin("images", 0, 0, 0), pixels=pixels)
