"""Other runtimes for ONNX models on a processor, each as the torch module that it stands in for.

torch runs every model on every device. On a processor ONNX Runtime or OpenVINO can be faster for
one model and slower for the next, so nothing is assumed: `models.tuning` measures, and what it
chose is used from then on. OpenVINO is optional (`pip install 'imagewire[openvino]'`).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.errors import ModelError

Backend = Literal["torch", "onnxruntime", "openvino"]
BACKENDS: tuple[Backend, ...] = ("torch", "onnxruntime", "openvino")

_Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def available_backends() -> tuple[Backend, ...]:
    """Those that are installed; torch always."""
    return tuple(name for name in BACKENDS if find_spec(name) is not None)


class RuntimeModule(nn.Module):
    """An ONNX model with one input and one output of interest (its first), float32 both.

    Moving it to another dtype does nothing; inputs of any floating dtype are accepted.
    """

    def __init__(self, path: Path, backend: Backend, exact: bool = False) -> None:
        """Load `path`; torch's own number of threads is used.

        Args:
            exact: compute in float32 throughout. Else OpenVINO computes in bfloat16 where the
                processor does; ONNX Runtime always computes in float32.

        Raises:
            ModelError: the runtime is not installed, or cannot run the model.
        """
        super().__init__()
        load = {"onnxruntime": _onnxruntime, "openvino": _openvino}.get(backend)
        if load is None:
            raise ModelError(f"'{backend}' is no runtime for ONNX files beside torch")
        try:
            self._run = load(path, torch.get_num_threads(), exact)
        except ModuleNotFoundError as error:
            raise ModelError(
                f"'{backend}' is not installed; pip install '{backend}', or run "
                "`imagewire models tune` again to choose from what is"
            ) from error
        except Exception as error:
            raise ModelError(
                f"'{backend}' cannot load '{path}' ({type(error).__name__}: {error})"
            ) from error

    def forward(self, images: Tensor) -> Tensor:
        """One pass. `images`: shape as the model wants it, on the CPU; the result is float32."""
        result = self._run(np.ascontiguousarray(images.float().numpy()))
        # A copy where the runtime lends its own memory, which the next pass writes over.
        return torch.from_numpy(np.array(result, np.float32))


def _onnxruntime(path: Path, threads: int, exact: bool) -> _Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin while they wait would take the processors from torch's and the decoders.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    output = [session.get_outputs()[0].name]

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run(output, {name: images})[0]
        return found

    return run


def _openvino(path: Path, threads: int, exact: bool) -> _Run:
    import openvino

    properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    if exact:
        properties["INFERENCE_PRECISION_HINT"] = "f32"
    compiled: Any = openvino.Core().compile_model(str(path), "CPU", properties)

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = compiled(images)[0]
        return found

    return run
