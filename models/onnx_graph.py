"""Run an ONNX graph as an ordinary torch module.

Many good weights are published only as ONNX. Run here, they share torch's devices, precisions,
threads and memory with every other network, on CPU and CUDA alike, and need no second runtime.
Weights become buffers, so `.to(device)`, `.bfloat16()`, `torch.autocast` and
`memory_format=torch.channels_last` mean what they mean for any module. What each operator does is
in `models/onnx_operations.py`; a graph with any other operator is refused when it is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

from models.errors import ModelError
from models.onnx_attributes import Attributes
from models.onnx_folding import fold
from models.onnx_fusion import fuse
from models.onnx_operations import OPERATIONS
from models.onnx_step import Step
from models.onnx_transposes import without_transposes

_ALIASES = frozenset({"Identity", "Dropout"})
"""Operators whose output is their first input; they cost nothing here."""


class OnnxModule(torch.nn.Module):
    """The network in an ONNX file; `forward` takes its inputs in the order of the graph.

    Floating-point constants are buffers and follow the module to its device and dtype. Integers,
    and every number that only decides shapes, stay on the CPU in full precision, so that shape
    arithmetic never waits for an accelerator. Nodes whose inputs are all constant are computed
    once, at loading, and each intermediate value is released after its last use.

    Attributes:
        input_names: the graph's inputs, in the order in which `forward` takes them.
        output_names: the graph's outputs, in the order in which `forward` returns them.
        metadata: the file's own key-value properties (class names, character lists, …).
        steps: its nodes in the order in which they run; whoever wants to look at what one gives
            may put something around its `compute`.
    """

    def __init__(self, path: Path) -> None:
        """Load `path`.

        Raises:
            ModelError: the file is no ONNX model, or has an operator or an attribute that is not
                supported; unknown operators are named all at once.
        """
        super().__init__()
        graph = _GraphReader(_read(path), path)
        self.input_names = graph.input_names
        self.output_names = graph.output_names
        self.metadata = graph.metadata
        self.steps = graph.steps
        self._results = graph.results
        self._host: dict[str, Tensor] = {}
        self._buffer_of: dict[str, str] = {}
        for name in graph.constants_on_device():
            self._buffer_of[name] = f"constant_{len(self._buffer_of)}"
            self.register_buffer(self._buffer_of[name], graph.constants[name])
        for name in graph.constants_on_host(self._buffer_of):
            self._host[name] = graph.constants[name]

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run the network: one tensor if the graph has one output, else a tuple of them.

        Raises:
            ValueError: the number of inputs is not the graph's.
        """
        if len(inputs) != len(self.input_names):
            raise ValueError(
                f"the graph takes {len(self.input_names)} inputs ({', '.join(self.input_names)}), "
                f"but {len(inputs)} were given"
            )
        buffers = {name: self._buffers[held] for name, held in self._buffer_of.items()}
        values = {**self._host, **dict(zip(self.input_names, inputs, strict=True))}
        for step in self.steps:
            _run(step, values, buffers)
        found = tuple(_present(buffers.get(name, values.get(name))) for name in self._results)
        return found[0] if len(found) == 1 else found


class _GraphReader:
    """Turns a graph into steps and constants, folding what does not depend on the inputs."""

    def __init__(self, model: ModelProto, path: Path) -> None:
        graph = model.graph
        self._path = path
        self._opset = max((i.version for i in model.opset_import if i.domain == ""), default=0)
        self._alias: dict[str, str] = {}
        self._shape_values: set[str] = set()
        self._refuse_unknown(graph.node)
        self.metadata = {item.key: item.value for item in model.metadata_props}
        self.constants = {item.name: _tensor(item) for item in graph.initializer}
        self.input_names = [i.name for i in graph.input if i.name not in self.constants]
        self.output_names = [output.name for output in graph.output]
        self.steps: list[Step] = []
        for number, node in enumerate(graph.node):
            self._add(number, node)
        self.results = [self._alias.get(name, name) for name in self.output_names]
        folded = fold(self.steps, self.constants, self.results)
        turned = without_transposes(folded, self.constants, self.results)
        self.steps = fuse(turned, self.constants, self.results)
        self._plan_release()

    def _refuse_unknown(self, nodes: Any) -> None:
        known = OPERATIONS.keys() | _ALIASES | {"Constant"}
        unknown = sorted(
            {
                node.op_type
                for node in nodes
                if node.op_type not in known or node.domain not in ("", "ai.onnx")
            }
        )
        if unknown:
            raise ModelError(
                f"{self._path} uses ONNX operators that are not supported: {', '.join(unknown)}; "
                "export the model without them, or give it as TorchScript or as a state dict"
            )

    def _add(self, number: int, node: NodeProto) -> None:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        inputs = [self._alias.get(name, name) for name in node.input]
        outputs = list(node.output)
        if node.op_type == "Constant":
            self.constants[outputs[0]] = self._constant(attributes)
            return
        if node.op_type in _ALIASES:
            self._alias[outputs[0]] = inputs[0]
            return
        operation = OPERATIONS[node.op_type]
        described = f"{self._path.name}: node {number} ({node.op_type} -> {outputs[0]})"
        compute = operation.build(Attributes(attributes, self._opset, described, len(outputs)))
        present = [name for name in inputs if name]
        if all(name in self.constants for name in present):
            found = compute(*(self.constants[name] if name else None for name in inputs))
            _store(self.constants, outputs, found)
            return
        host = [position in operation.host_inputs for position in range(len(inputs))]
        shape_only = node.op_type == "Shape" or all(
            name in self.constants or name in self._shape_values for name in present
        )
        if shape_only:
            self._shape_values.update(outputs)
            host = [True] * len(inputs)
        self.steps.append(Step(node.op_type, compute, inputs, outputs, host, attributes))

    def _constant(self, attributes: Mapping[str, Any]) -> Tensor:
        if "value" in attributes:
            return _tensor(attributes["value"])
        for name in ("value_int", "value_ints", "value_float", "value_floats"):
            if name in attributes:
                return torch.tensor(attributes[name])
        raise ModelError(
            f"{self._path}: a Constant holds {', '.join(attributes) or 'nothing'}; only tensors, "
            "integers and floats are supported"
        )

    def constants_on_device(self) -> list[str]:
        """Floating-point constants that meet activations, or are themselves an output."""
        met = {
            name
            for step in self.steps
            for name, host in zip(step.inputs, step.host, strict=True)
            if not host
        } | set(self.results)
        return [n for n, value in self.constants.items() if n in met and value.is_floating_point()]

    def constants_on_host(self, on_device: Mapping[str, str]) -> list[str]:
        """The other constants that are needed: integers, and numbers read as Python numbers."""
        read = {
            name
            for step in self.steps
            for name, host in zip(step.inputs, step.host, strict=True)
            if host or name not in on_device
        } | (set(self.results) - on_device.keys())
        return [name for name in self.constants if name in read]

    def _plan_release(self) -> None:
        kept = {"", *self.results, *self.constants}
        last_use = {name: step for step in self.steps for name in (*step.inputs, *step.outputs)}
        for name, step in last_use.items():
            if name not in kept:
                step.frees.append(name)


def _run(step: Step, values: dict[str, Tensor], buffers: Mapping[str, Tensor | None]) -> None:
    """Compute the outputs of `step` into `values` and release what is not needed any more."""
    _store(values, step.outputs, step.compute(*_inputs(step, values, buffers)))
    for name in step.frees:
        del values[name]


def _inputs(
    step: Step, values: Mapping[str, Tensor], buffers: Mapping[str, Tensor | None]
) -> Iterator[Tensor | None]:
    for name, host in zip(step.inputs, step.host, strict=True):
        if not name:
            yield None
        elif not host and name in buffers:
            yield buffers[name]
        else:
            yield values[name]


def _store(values: dict[str, Tensor], names: list[str], found: Any) -> None:
    if isinstance(found, tuple):
        values.update((name, item) for name, item in zip(names, found, strict=False) if name)
    else:
        values[names[0]] = found


def _present(value: Tensor | None) -> Tensor:
    if value is None:
        raise ModelError("the graph names an output that none of its nodes computes")
    return value


def _tensor(proto: TensorProto) -> Tensor:
    return torch.from_numpy(numpy_helper.to_array(proto).copy())


def _read(path: Path) -> ModelProto:
    try:
        model = onnx.load(path)
    except (OSError, DecodeError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as an ONNX model: {error}") from error
    if not model.graph.node:
        raise ModelError(f"{path} is no ONNX model, or has an empty graph; check the file")
    return model
