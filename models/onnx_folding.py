"""Fold what an ONNX export does after a convolution into the weights of the convolution.

TensorFlow's exporter writes batch normalisation as a subtraction, a multiplication and an addition,
between transpositions and casts that change nothing. Each reads and writes the whole activation. As
they are linear and act on each channel alone, the convolution can do them at no cost: open_nsfw
shrinks from 794 steps to 287; the result is the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.onnx_step import Step

_GIVE_FLOATS = frozenset(
    {"Conv", "ConvTranspose", "BatchNormalization", "MatMul", "Gemm", "Softmax", "Sigmoid"}
)
"""Operators whose result is floating point, whatever the graph says of its inputs."""
_KEEP_FLOATS = frozenset(
    {"Add", "Sub", "Mul", "Div", "Relu", "Transpose", "Reshape", "Pad", "MaxPool", "AveragePool"}
    | {"ReduceMean", "GlobalAveragePool", "Cast", "Concat"}
)
"""Operators whose result is floating point if their first input is."""
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div"})


def fold(steps: Sequence[Step], constants: dict[str, Tensor], results: Sequence[str]) -> list[Step]:
    """Equivalent steps without needless casts, and with the arithmetic on single channels inside
    the convolutions before it. New weights and biases are added to `constants`."""
    return _fold_channels(_without_casts(steps, results), constants, results)


def _without_casts(steps: Sequence[Step], results: Sequence[str]) -> list[Step]:
    """Casts between floating-point types are left out: modules keep the type they were set to."""
    floats: set[str] = set()
    same: dict[str, str] = {}
    kept = []
    for step in steps:
        step.inputs = [same.get(name, name) for name in step.inputs]
        first = step.inputs[0] if step.inputs else ""
        if step.kind in _GIVE_FLOATS or (step.kind in _KEEP_FLOATS and first in floats):
            if step.casts_to_float and step.outputs[0] not in results:
                same[step.outputs[0]] = first
                continue
            if step.kind != "Cast" or step.casts_to_float:
                floats.update(step.outputs)
        kept.append(step)
    return kept


@dataclass
class _Affine:
    """x * scale + shift for each channel; float64, since products of constants pile up errors."""

    scale: Tensor
    shift: Tensor

    def then(self, step: Step, value: Tensor) -> None:
        value = value.double()
        if step.kind == "Add":
            self.shift = self.shift + value
        elif step.kind == "Sub":
            self.shift = self.shift - value
        else:
            factor = value if step.kind == "Mul" else 1.0 / value
            self.scale, self.shift = self.scale * factor, self.shift * factor


def _fold_channels(
    steps: Sequence[Step], constants: dict[str, Tensor], results: Iterable[str]
) -> list[Step]:
    users: dict[str, list[Step]] = {}
    for step in steps:
        for name in step.inputs:
            users.setdefault(name, []).append(step)
    final = frozenset(results)
    gone: set[int] = set()

    def only_user(step: Step) -> Step | None:
        name = step.outputs[0]
        found = users.get(name, [])
        return found[0] if len(found) == 1 and name not in final else None

    for convolution in steps:
        if convolution.kind != "Conv" or convolution.inputs[1] not in constants:
            continue
        if len(convolution.inputs) > 2 and convolution.inputs[2] not in constants:
            continue
        weight = constants[convolution.inputs[1]]
        bias = constants[convolution.inputs[2]] if len(convolution.inputs) > 2 else None
        channels = len(weight)
        affine = _Affine(
            torch.ones(channels, dtype=torch.float64),
            torch.zeros(channels, dtype=torch.float64) if bias is None else bias.double(),
        )
        folded: list[Step] = []
        last, axis, rank = convolution, 1, weight.ndim
        moved = None
        user = only_user(convolution)
        if user is not None and user.kind == "Transpose" and user.order is not None:
            moved, last, axis = user, user, user.order.index(1)
            user = only_user(user)
        while user is not None and user.kind in _ARITHMETIC:
            value = _for_channels(user, last.outputs[0], constants, channels, axis, rank)
            if value is None:
                break
            affine.then(user, value)
            folded.append(user)
            last = user
            user = only_user(user)
        if not folded:
            continue
        gone.update(id(step) for step in folded)
        (moved or convolution).outputs = last.outputs
        name = f"{convolution.inputs[1]} with {last.outputs[0]}"
        if not bool((affine.scale == 1).all()):
            shape = (channels, *([1] * (rank - 1)))
            constants[name] = (weight.double() * affine.scale.reshape(shape)).to(weight.dtype)
        else:
            constants[name] = weight
        constants[f"{name}, bias"] = affine.shift.to(weight.dtype)
        convolution.inputs = [convolution.inputs[0], name, f"{name}, bias"]
        convolution.host = [False] * 3
    return [step for step in steps if id(step) not in gone]


def _for_channels(
    step: Step, before: str, constants: dict[str, Tensor], channels: int, axis: int, rank: int
) -> Tensor | None:
    """The constant that `step` combines with `before`, if it is one number for each channel."""
    if any(step.host) or len(step.inputs) != 2 or before not in step.inputs:
        return None
    if step.kind in ("Sub", "Div") and step.inputs[0] != before:
        return None
    other = step.inputs[1] if step.inputs[0] == before else step.inputs[0]
    value = constants.get(other)
    if value is None or not value.is_floating_point():
        return None
    if value.ndim > rank:
        return None
    if value.numel() == 1:
        return value.reshape(1)
    full = [1] * (rank - value.ndim) + list(value.shape)
    if len(full) != rank or full[axis] != channels or value.numel() != channels:
        return None
    return value.reshape(-1)
