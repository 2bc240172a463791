"""Real photos out of installed packages, and devices in which the networks are compared."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.catalog import Catalog, load_catalog
from models.device import Device

torch.set_num_threads(1)


def package_file(module: str, relative: str) -> Path:
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))) / relative


@pytest.fixture(scope="session")
def photos() -> dict[str, torch.Tensor]:
    """Name to uint8 RGB pixels (H, W, 3), of five different sizes."""
    files = {
        "astronaut": package_file("skimage", "data/astronaut.png"),
        "coffee": package_file("skimage", "data/coffee.png"),
        "hopper": package_file("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
        "zidane": package_file("ultralytics", "assets/zidane.jpg"),
        "bus": package_file("ultralytics", "assets/bus.jpg"),
    }
    return {
        name: torch.from_numpy(np.asarray(Image.open(file).convert("RGB")).copy())
        for name, file in files.items()
    }


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return load_catalog()


@pytest.fixture(scope="session")
def float32() -> Device:
    return Device(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session")
def bfloat16() -> Device:
    return Device(torch.device("cpu"), torch.bfloat16)
