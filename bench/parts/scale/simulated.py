"""A device that is only imagined: each batch takes it a fixed time, in which the processor is free.

With it one machine shows what many would do, and what a batch costs without any model. It is a
third-party operator like any other, found by its entry point; the metadata that an installed
distribution has are written into a folder that the worker finds on its path.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from models.catalog import Catalog
from models.device import Device
from operators.embedding import EmbeddingOperator
from operators.findings import Detection, Embedding
from operators.frame import Frame
from operators.least_size import LeastSize
from operators.operator import Operator
from operators.operator_options import checked
from operators.registry import BUILT_IN, GROUP

NAME = "simulated"
MODEL = "simulated@1"
DIMENSION = 128
"""Of the vectors: enough to be a search's, and a million of them fit into half a gigabyte."""

_REPOSITORY = Path(__file__).parents[3]


class SimulatedOptions(BaseModel):
    """The settings of the operator `simulated`: seconds for any batch, seconds more for each of
    its frames, and the length of the vectors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    launch: float = Field(default=0.0, ge=0)
    per_frame: float = Field(default=0.0, ge=0)
    dimension: int = Field(default=DIMENSION, ge=1)


class SimulatedDevice(EmbeddingOperator):
    """Sleeps as long as a device would compute, then gives each frame a random unit vector, two
    boxes and a score, so that every sink gets what it gets in earnest."""

    name: ClassVar[str] = NAME
    depends_on_content_only: ClassVar[bool] = False

    def __init__(self, options: Mapping[str, Any], device: Device, catalog: Catalog) -> None:
        # Not the embedding operator's own: there is no model of the catalogue to be found.
        Operator.__init__(self, options, device, catalog)
        self._simulated = checked(NAME, options, SimulatedOptions)
        self._random = np.random.default_rng()

    @property
    def dimension(self) -> int:
        return self._simulated.dimension

    def setup(self) -> None:
        """Nothing is to be loaded."""

    def close(self) -> None:
        """Nothing was taken."""

    def least_size(self) -> LeastSize:
        return LeastSize()

    def model_versions(self) -> dict[str, str]:
        return {NAME: MODEL}

    def process(self, frames: Sequence[Frame]) -> None:
        seconds = self._simulated.launch + len(frames) * self._simulated.per_frame
        if seconds:
            time.sleep(seconds)
        vectors = unit_vectors(self._random, len(frames), self.dimension)
        for frame, vector in zip(frames, vectors.tolist(), strict=True):
            frame.findings.embedding = Embedding(MODEL, vector)
            frame.findings.objects = [
                Detection("FACE_FEMALE", 0.9, (4.0, 4.0, 20.0, 24.0)),
                Detection("FEET_COVERED", 0.6, (10.0, 30.0, 28.0, 44.0)),
            ]
            frame.findings.scores = {"nsfw": 0.03}


def unit_vectors(
    random: np.random.Generator, number: int, dimension: int
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Directions without any preference, float32 (number, dimension), of unit length."""
    vectors = random.standard_normal((number, dimension), dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: np.ndarray[tuple[int, int], np.dtype[np.float32]] = vectors / lengths
    return scaled


def install(folder: Path) -> str:
    """Write the metadata of a distribution that offers this operator into `folder`.

    Returns:
        What a worker needs as `PYTHONPATH` to find it.
    """
    metadata = folder / "imagewire_bench-0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: imagewire-bench\nVersion: 0\n")
    target = f"{__name__}:{SimulatedDevice.__name__}"
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n{NAME} = {target}\n")
    return f"{folder}:{_REPOSITORY}"


def settings(path: str, *, launch: float = 0.0, per_frame: float = 0.0) -> dict[str, str]:
    """A worker's environment in which this is the only operator.

    Decoding is as cheap as it can be: in the worker's own process, which no stranger's image
    reaches here.
    """
    operators = dict.fromkeys(BUILT_IN, "false")
    return {
        "PYTHONPATH": path,
        **{f"IMAGEWIRE_OPERATORS__{name.upper()}__ENABLED": off for name, off in operators.items()},
        f"IMAGEWIRE_OPERATORS__{NAME.upper()}__LAUNCH": str(launch),
        f"IMAGEWIRE_OPERATORS__{NAME.upper()}__PER_FRAME": str(per_frame),
        "IMAGEWIRE_DECODE__ISOLATION": "thread",
        "IMAGEWIRE_DECODE__THREADS": "1",
        "IMAGEWIRE_MODELS__THREADS": "1",
        "IMAGEWIRE_MODELS__PRECISION": "fp32",
    }


def picture() -> bytes:
    """A JPEG of 32 x 48 pixels, some 700 bytes: as little to decode as may be."""
    clouds = np.random.default_rng(7).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    done, encoded = cv2.imencode(".jpg", cv2.resize(clouds, (32, 48)))
    if not done:
        raise RuntimeError("OpenCV cannot write JPEG")
    content: bytes = encoded.tobytes()
    return content
