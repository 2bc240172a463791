"""The vocabulary that ONNX operators are described in: a node's attributes, and an operation.

Attributes are read, and unsupported ones refused, when a graph is loaded, so that nothing
surprising is left for the first batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from models.errors import ModelError

Compute = Callable[..., Any]
"""Takes a node's inputs (`None` for one that is left out) and returns its output or outputs."""


@dataclass(frozen=True)
class Attributes:
    """A node's attributes, and what is needed to read them and to name the node in an error."""

    values: Mapping[str, Any]
    opset: int
    node: str
    outputs: int = 1

    def integer(self, name: str, default: int) -> int:
        return int(self.values.get(name, default))

    def number(self, name: str, default: float) -> float:
        return float(self.values.get(name, default))

    def integers(self, name: str) -> list[int] | None:
        found = self.values.get(name)
        return None if found is None else [int(item) for item in found]

    def text(self, name: str, default: str) -> str:
        found = self.values.get(name, default)
        return found.decode("ascii") if isinstance(found, bytes) else str(found)

    def refuse(self, what: str) -> ModelError:
        return ModelError(
            f"{self.node} uses {what}, which is not supported; export the model without it, "
            "or add it to the table in models/onnx_operations.py"
        )


@dataclass(frozen=True)
class Operation:
    """How to compute one ONNX operator.

    Attributes:
        build: makes the function for a node's attributes; raises `ModelError` for unsupported ones.
        host_inputs: positions of inputs that are read as Python numbers (shapes, axes, bounds).
            They are kept on the CPU in full precision, wherever the network runs.
    """

    build: Callable[[Attributes], Compute]
    host_inputs: frozenset[int] = frozenset()


def integers(tensor: Tensor) -> list[int]:
    return [int(item) for item in tensor.tolist()]
