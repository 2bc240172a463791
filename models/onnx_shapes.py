"""ONNX operators that move, pick and reshape values without computing with them.

Source: the ONNX operator specification (github.com/onnx/onnx, docs/Operators.md), opsets 11 to 21.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor

from models.onnx_attributes import Attributes, Compute, integers


def concatenate(attributes: Attributes) -> Compute:
    axis = attributes.integer("axis", 0)

    def compute(*parts: Tensor) -> Tensor:
        devices = {part.device for part in parts}
        if len(devices) > 1:
            target = next(device for device in devices if device.type != "cpu")
            parts = tuple(part.to(target) for part in parts)
        return torch.cat(parts, axis)

    return compute


def reshape(attributes: Attributes) -> Compute:
    keep_zero = bool(attributes.integer("allowzero", 0))

    def compute(x: Tensor, shape: Tensor) -> Tensor:
        wanted = integers(shape)
        if not keep_zero:
            wanted = [x.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
        return x.reshape(wanted)

    return compute


def flatten(attributes: Attributes) -> Compute:
    axis = attributes.integer("axis", 1)

    def compute(x: Tensor) -> Tensor:
        start = axis if axis >= 0 else x.ndim + axis
        return x.reshape(math.prod(x.shape[:start]), -1)

    return compute


def transpose(attributes: Attributes) -> Compute:
    order = attributes.integers("perm")
    return lambda x: x.permute(order if order else tuple(reversed(range(x.ndim))))


def squeeze(attributes: Attributes) -> Compute:
    fixed = attributes.integers("axes")

    def compute(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = fixed if axes is None else integers(axes)
        return x.squeeze() if chosen is None else x.squeeze(tuple(chosen))

    return compute


def unsqueeze(attributes: Attributes) -> Compute:
    fixed = attributes.integers("axes")

    def compute(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = (fixed or []) if axes is None else integers(axes)
        rank = x.ndim + len(chosen)
        for axis in sorted(axis % rank for axis in chosen):
            x = x.unsqueeze(axis)
        return x

    return compute


def slice_axes(attributes: Attributes) -> Compute:
    fixed_starts, fixed_ends = attributes.integers("starts"), attributes.integers("ends")
    fixed_axes = attributes.integers("axes")

    def compute(
        x: Tensor,
        starts: Tensor | None = None,
        ends: Tensor | None = None,
        axes: Tensor | None = None,
        steps: Tensor | None = None,
    ) -> Tensor:
        first = (fixed_starts or []) if starts is None else integers(starts)
        last = (fixed_ends or []) if ends is None else integers(ends)
        along = fixed_axes if axes is None else integers(axes)
        stride = [1] * len(first) if steps is None else integers(steps)
        for begin, end, axis, step in zip(
            first, last, along or range(len(first)), stride, strict=True
        ):
            taken = range(*slice(begin, end, step).indices(x.shape[axis]))
            if step > 0:
                x = x.narrow(axis, taken.start, max(0, taken.stop - taken.start))
                if step > 1:
                    index = torch.arange(0, x.shape[axis], step, device=x.device)
                    x = x.index_select(axis, index)
            else:
                # torch has no negative steps, so the positions are listed.
                x = x.index_select(axis, torch.tensor(list(taken), device=x.device).long())
        return x

    return compute


def gather(attributes: Attributes) -> Compute:
    axis = attributes.integer("axis", 0)

    def compute(x: Tensor, index: Tensor) -> Tensor:
        along = axis % x.ndim
        positions = index.long().to(x.device)
        positions = torch.where(positions < 0, positions + x.shape[along], positions)
        chosen = x.index_select(along, positions.reshape(-1))
        return chosen.reshape(x.shape[:along] + positions.shape + x.shape[along + 1 :])

    return compute


def split(attributes: Attributes) -> Compute:
    fixed, axis = attributes.integers("split"), attributes.integer("axis", 0)
    equal = attributes.outputs

    def compute(x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        chosen = fixed if sizes is None else integers(sizes)
        if chosen is None:
            # The last part is the smaller one when the size does not divide evenly.
            each = -(-x.shape[axis] // equal)
            chosen = [min(each, x.shape[axis] - each * i) for i in range(equal)]
        return tuple(torch.split_with_sizes(x, chosen, axis))

    return compute


_DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.BOOL: torch.bool,
}


def cast(attributes: Attributes) -> Compute:
    wanted = attributes.integer("to", 0)
    if wanted not in _DTYPES:
        raise attributes.refuse(f"a cast to ONNX type {wanted}")
    dtype = _DTYPES[wanted]
    # A network that was set to bfloat16 or runs under autocast keeps that precision.
    return lambda x: x if dtype.is_floating_point and x.is_floating_point() else x.to(dtype)


def constant_of_shape(attributes: Attributes) -> Compute:
    proto = attributes.values.get("value")
    fill = torch.zeros(1) if proto is None else torch.tensor(numpy_helper.to_array(proto))
    return lambda shape: torch.full(integers(shape), fill.item(), dtype=fill.dtype)


def expand(attributes: Attributes) -> Compute:
    return lambda x, shape: x.expand(np.broadcast_shapes(tuple(x.shape), tuple(integers(shape))))


def number_range(attributes: Attributes) -> Compute:
    return lambda start, end, step: torch.arange(
        start.item(), end.item(), step.item(), dtype=start.dtype
    )


def shape(attributes: Attributes) -> Compute:
    return lambda x: torch.tensor(x.shape, dtype=torch.int64)
