"""What each ONNX operator means in torch: the table, and the arithmetic.

Every entry of `OPERATIONS` is a factory: given the attributes of a node it returns the function
that computes it. Source: the ONNX operator specification (github.com/onnx/onnx,
docs/Operators.md), opsets 11 to 21.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own documentation calls it F
from torch import Tensor

from models import onnx_shapes, onnx_windows
from models.onnx_attributes import Attributes, Compute, Operation, integers


def _batch_normalisation(attributes: Attributes) -> Compute:
    if attributes.integer("training_mode", 0):
        raise attributes.refuse("training_mode")
    epsilon = attributes.number("epsilon", 1e-5)

    def compute(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)

    return compute


def _gemm(attributes: Attributes) -> Compute:
    alpha, beta = attributes.number("alpha", 1.0), attributes.number("beta", 1.0)
    flip_a, flip_b = attributes.integer("transA", 0), attributes.integer("transB", 0)

    def compute(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        product = (a.t() if flip_a else a) @ (b.t() if flip_b else b)
        if alpha != 1.0:
            product = product * alpha
        if c is None:
            return product
        return product + (c if beta == 1.0 else c * beta)

    return compute


def _meet(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Bring a value of the shape arithmetic to the device and dtype of the one it meets."""
    if x.device == y.device:
        return x, y
    if x.device.type == "cpu":
        x = x.to(y.device, y.dtype if x.is_floating_point() and y.is_floating_point() else None)
    elif y.device.type == "cpu":
        y = y.to(x.device, x.dtype if x.is_floating_point() and y.is_floating_point() else None)
    return x, y


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    def compute(x: Tensor, y: Tensor) -> Tensor:
        return function(*_meet(x, y))

    return Operation(lambda attributes: compute)


def _unary(function: Callable[[Tensor], Tensor]) -> Operation:
    return Operation(lambda attributes: function)


def _divide(x: Tensor, y: Tensor) -> Tensor:
    if x.is_floating_point() or y.is_floating_point():
        return torch.div(x, y)
    return torch.div(x, y, rounding_mode="trunc")


def _clip(attributes: Attributes) -> Compute:
    low, high = attributes.values.get("min"), attributes.values.get("max")

    def compute(x: Tensor, lower: Tensor | None = None, upper: Tensor | None = None) -> Tensor:
        smallest = low if lower is None else lower.item()
        largest = high if upper is None else upper.item()
        return x if smallest is None and largest is None else x.clamp(smallest, largest)

    return compute


def _hard_sigmoid(attributes: Attributes) -> Compute:
    alpha, beta = attributes.number("alpha", 0.2), attributes.number("beta", 0.5)
    return lambda x: (x * alpha + beta).clamp_(0.0, 1.0)


def _leaky_relu(attributes: Attributes) -> Compute:
    slope = attributes.number("alpha", 0.01)
    return lambda x: F.leaky_relu(x, slope)


def _softmax(attributes: Attributes) -> Compute:
    if attributes.opset >= 13:
        axis = attributes.integer("axis", -1)
        return lambda x: x.softmax(axis)
    first = attributes.integer("axis", 1)

    def compute(x: Tensor) -> Tensor:
        # Before opset 13 every axis from `axis` on was normalised together.
        start = first % x.ndim
        return x.flatten(start).softmax(-1).reshape(x.shape)

    return compute


def _reduction(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operation:
    def build(attributes: Attributes) -> Compute:
        fixed = attributes.integers("axes")
        keep = bool(attributes.integer("keepdims", 1))
        nothing = bool(attributes.integer("noop_with_empty_axes", 0))

        def compute(x: Tensor, axes: Tensor | None = None) -> Tensor:
            chosen = (fixed or []) if axes is None else integers(axes)
            if not chosen and nothing:
                return x
            return function(x, chosen or list(range(x.ndim)), keep)

        return compute

    return Operation(build, frozenset({1}))


OPERATIONS: Mapping[str, Operation] = {
    "Abs": _unary(torch.abs),
    "Add": _binary(torch.add),
    "AveragePool": Operation(onnx_windows.average_pooling),
    "BatchNormalization": Operation(_batch_normalisation),
    "Cast": Operation(onnx_shapes.cast),
    "Clip": Operation(_clip, frozenset({1, 2})),
    "Concat": Operation(onnx_shapes.concatenate),
    "ConstantOfShape": Operation(onnx_shapes.constant_of_shape, frozenset({0})),
    "Conv": Operation(onnx_windows.convolution),
    "ConvTranspose": Operation(onnx_windows.transposed_convolution),
    "Div": _binary(_divide),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Expand": Operation(onnx_shapes.expand, frozenset({1})),
    "Flatten": Operation(onnx_shapes.flatten),
    "Gather": Operation(onnx_shapes.gather),
    "Gemm": Operation(_gemm),
    "GlobalAveragePool": _unary(lambda x: x.mean(tuple(range(2, x.ndim)), keepdim=True)),
    "HardSigmoid": Operation(_hard_sigmoid),
    "HardSwish": _unary(F.hardswish),
    "LeakyRelu": Operation(_leaky_relu),
    "MatMul": _binary(torch.matmul),
    "MaxPool": Operation(onnx_windows.max_pooling),
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "Pad": Operation(onnx_windows.pad, frozenset({1, 2, 3})),
    "Pow": _binary(torch.pow),
    "Range": Operation(onnx_shapes.number_range, frozenset({0, 1, 2})),
    "ReduceMax": _reduction(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMean": _reduction(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceSum": _reduction(lambda x, axes, keep: x.sum(axes, keep)),
    "Relu": _unary(torch.relu),
    "Reshape": Operation(onnx_shapes.reshape, frozenset({1})),
    "Resize": Operation(onnx_windows.resize, frozenset({1, 2, 3})),
    "Shape": Operation(onnx_shapes.shape),
    "Sigmoid": _unary(torch.sigmoid),
    "Slice": Operation(onnx_shapes.slice_axes, frozenset({1, 2, 3, 4})),
    "Softmax": Operation(_softmax),
    "Split": Operation(onnx_shapes.split, frozenset({1})),
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": Operation(onnx_shapes.squeeze, frozenset({1})),
    "Sub": _binary(torch.sub),
    "Tanh": _unary(torch.tanh),
    "Transpose": Operation(onnx_shapes.transpose),
    "Unsqueeze": Operation(onnx_shapes.unsqueeze, frozenset({1})),
}
