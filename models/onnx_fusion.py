"""Put back together what an ONNX export took apart, where torch has it as one operation.

PaddlePaddle's exporter writes the bias of a convolution or a linear layer as an addition of its
own, and GELU as five elementwise steps. Each of them reads and writes the whole activation, and a
float32 bias lifts a bfloat16 activation back to float32 under autocast. Fusing them saves PP-OCR a
third of its time on a processor; the result is the same up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F  # noqa: N812 - torch's own documentation calls it F
from torch import Tensor

from models.one_pass import Activation
from models.onnx_step import Step


def fuse(steps: Sequence[Step], constants: dict[str, Tensor], results: Sequence[str]) -> list[Step]:
    """Equivalent steps, fewer of them. Biases that become part of a convolution are added to
    `constants` in the shape that it takes."""
    return _Fusion(steps, constants, results).steps


_ACTIVATIONS: dict[str, Activation] = {"Relu": "relu", "Gelu": "gelu"}


def _users(steps: Sequence[Step]) -> dict[str, list[Step]]:
    """The steps that take each value."""
    users: dict[str, list[Step]] = {}
    for step in steps:
        for name in step.inputs:
            users.setdefault(name, []).append(step)
    return users


class _Fusion:
    def __init__(
        self, steps: Sequence[Step], constants: dict[str, Tensor], results: Sequence[str]
    ) -> None:
        self._constants = constants
        self._users = _users(steps)
        self._results = frozenset(results)
        self._gone: set[int] = set()
        for step in steps:
            if step.kind in ("Conv", "ConvTranspose"):
                self._take_bias(step)
            elif step.kind == "MatMul":
                self._linear(step)
            elif step.kind == "Div":
                self._gelu(step)
        left = [step for step in steps if id(step) not in self._gone]
        self._users = _users(left)
        for step in [step for step in left if step.kind == "Conv"]:
            self._one_pass(step)
        self.steps = [step for step in left if id(step) not in self._gone]

    def _only_user(self, step: Step, kind: str) -> Step | None:
        """The one step that uses the result of `step`, if it is of `kind`."""
        name = step.outputs[0]
        users = self._users.get(name, [])
        if len(users) != 1 or users[0].kind != kind or name in self._results:
            return None
        return users[0]

    def _constant_beside(self, step: Step, name: str) -> str | None:
        """The other input of a step with two, if it is a constant."""
        others = [other for other in step.inputs if other != name]
        return others[0] if len(others) == 1 and others[0] in self._constants else None

    def _take_bias(self, convolution: Step) -> None:
        weight = self._constants.get(convolution.inputs[1])
        addition = self._only_user(convolution, "Add")
        if addition is None or weight is None or any(convolution.inputs[2:]):
            return
        constant = self._constant_beside(addition, convolution.outputs[0])
        if constant is None:
            return
        bias = self._constants[constant]
        channels = bias.numel()
        wanted = (1, channels, *([1] * (weight.ndim - 2)))
        # Only an ungrouped transposed convolution shows its output channels in its weight.
        known = weight.shape[0] if convolution.kind == "Conv" else weight.shape[1]
        if tuple(bias.shape) != wanted or channels != known:
            return
        name = f"{constant} as the bias of {convolution.outputs[0]}"
        self._constants[name] = bias.reshape(-1)
        convolution.inputs = [*convolution.inputs[:2], name]
        convolution.host = [False] * 3
        convolution.outputs = addition.outputs
        self._gone.add(id(addition))

    def _linear(self, product: Step) -> None:
        """x @ weight + bias with constant weight and bias."""
        weight = self._constants.get(product.inputs[1])
        addition = self._only_user(product, "Add")
        if addition is None or weight is None or weight.ndim != 2:
            return
        constant = self._constant_beside(addition, product.outputs[0])
        if constant is None or tuple(self._constants[constant].shape) != (weight.shape[1],):
            return
        product.kind, product.compute = "Linear", _linear
        product.inputs, product.host = [*product.inputs, constant], [False] * 3
        product.outputs = addition.outputs
        self._gone.add(id(addition))

    def _gelu(self, division: Step) -> None:
        """x / sqrt(2), erf, + 1, * x, * 0.5 (or the last two the other way round)."""
        x = division.inputs[0]
        if not self._is_number(division.inputs[1], math.sqrt(2)):
            return
        erf = self._only_user(division, "Erf")
        plus_one = erf and self._only_user(erf, "Add")
        if not erf or not plus_one or not self._takes_number(plus_one, erf, 1.0):
            return
        first = self._only_user(plus_one, "Mul")
        second = first and self._only_user(first, "Mul")
        if not first or not second:
            return
        halved_last = set(first.inputs) == {plus_one.outputs[0], x} and self._takes_number(
            second, first, 0.5
        )
        halved_first = set(second.inputs) == {first.outputs[0], x} and self._takes_number(
            first, plus_one, 0.5
        )
        if not halved_last and not halved_first:
            return
        second.kind, second.compute, second.inputs, second.host = "Gelu", F.gelu, [x], [False]
        self._gone.update(id(step) for step in (division, erf, plus_one, first))

    def _one_pass(self, convolution: Step) -> None:
        """A convolution, what is added to it, and its activation."""
        weight = self._constants.get(convolution.inputs[1])
        if weight is None or weight.ndim != 4:
            return
        last = self._with_addition(convolution, weight)
        steps, then = self._activation(last)
        if then is not None:
            last.compute = partial(last.compute, then=then)
            last.outputs = steps[-1].outputs
            self._gone.update(id(step) for step in steps)

    def _activation(self, step: Step) -> tuple[Sequence[Step], Activation | None]:
        """The steps that take the result of `step`, and nobody else, through an activation."""
        for kind, then in _ACTIVATIONS.items():
            activation = self._only_user(step, kind)
            if activation is not None:
                return [activation], then
        # x * sigmoid(x)
        x = step.outputs[0]
        users = {user.kind: user for user in self._users.get(x, [])}
        if x in self._results or users.keys() != {"Sigmoid", "Mul"}:
            return [], None
        sigmoid, product = users["Sigmoid"], users["Mul"]
        if self._only_user(sigmoid, "Mul") is not product or len(self._users[x]) != 2:
            return [], None
        return ([sigmoid, product], "silu") if x in product.inputs else ([], None)

    def _with_addition(self, convolution: Step, weight: Tensor) -> Step:
        """The step that computes the convolution and adds to it, in the place of the addition,
        since only there the other summand is known; the convolution if nothing is added."""
        addition = self._only_user(convolution, "Add")
        if addition is None or any(addition.host) or convolution.attributes.get("group", 1) != 1:
            return convolution
        others = [name for name in addition.inputs if name != convolution.outputs[0]]
        if len(others) != 1 or others[0] in self._constants:
            return convolution
        bias = convolution.inputs[2] if len(convolution.inputs) > 2 else ""
        addition.kind, addition.compute = "Conv", convolution.compute
        addition.inputs = [*convolution.inputs[:2], bias, others[0]]
        addition.host, addition.attributes = [False] * 4, convolution.attributes
        self._gone.add(id(convolution))
        return addition

    def _takes_number(self, step: Step, before: Step, number: float) -> bool:
        """Whether `step` combines the result of `before` with this number."""
        constant = self._constant_beside(step, before.outputs[0])
        return constant is not None and self._is_number(constant, number)

    def _is_number(self, name: str, number: float) -> bool:
        value = self._constants.get(name)
        if value is None or value.numel() != 1 or not value.is_floating_point():
            return False
        return math.isclose(value.item(), number, rel_tol=1e-5)


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(x, weight.t(), bias)
