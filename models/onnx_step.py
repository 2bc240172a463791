"""One node of an ONNX graph, ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnx import TensorProto

from models.onnx_attributes import Compute

_FLOATS = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
)


@dataclass
class Step:
    """One node, ready to run.

    Attributes:
        kind: the ONNX operator.
        compute: takes the inputs' values and returns the output, or a tuple of outputs.
        inputs: names of values, "" for one that is left out.
        host: for each input, whether it is read as Python numbers and so stays on the CPU.
        attributes: as they stand in the file.
        frees: the values whose last use is here.
    """

    kind: str
    compute: Compute
    inputs: list[str]
    outputs: list[str]
    host: list[bool]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    frees: list[str] = field(default_factory=list)

    @property
    def casts_to_float(self) -> bool:
        return self.kind == "Cast" and self.attributes.get("to") in _FLOATS

    @property
    def order(self) -> list[int] | None:
        """The axes of a transposition, if the file names them."""
        found = self.attributes.get("perm")
        return None if found is None else [int(axis) for axis in found]
