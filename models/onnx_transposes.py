"""Leave out transpositions that undo each other.

TensorFlow keeps channels last and its exporter turns every convolution's input and output round. A
transposition costs nothing by itself in torch, but an activation or a sum behind one cannot become
part of the convolution before it. So each waits until a step needs it: what treats all elements
alike is done before it instead, and of two that undo each other none is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from models.onnx_step import Step

_ONE_VALUE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Erf", "Sqrt", "Exp", "Tanh"})
_TWO_VALUES = frozenset({"Add", "Sub", "Mul", "Div"})

_Order = tuple[int, ...]


def without_transposes(
    steps: Sequence[Step], constants: Mapping[str, Tensor], results: Sequence[str]
) -> list[Step]:
    """Equivalent steps, with transpositions only where a step needs one."""
    waiting = _Waiting(constants, results)
    for step in steps:
        waiting.take(step)
    for name in results:
        waiting.needed(name)
    return waiting.steps


class _Waiting:
    """Values that are transpositions of others and have not been needed so far."""

    def __init__(self, constants: Mapping[str, Tensor], results: Sequence[str]) -> None:
        self.steps: list[Step] = []
        self._constants = constants
        self._results = frozenset(results)
        self._transposed: dict[str, tuple[str, _Order, Step]] = {}
        self._made: set[str] = set()

    def take(self, step: Step) -> None:
        order = tuple(step.attributes.get("perm") or ())
        if step.kind == "Transpose" and order and not any(step.host):
            source = step.inputs[0]
            if source in self._transposed:
                source, before, _ = self._transposed[source]
                order = tuple(before[axis] for axis in order)
            self._transposed[step.outputs[0]] = source, order, step
            return
        before_it = self._before_transposition(step)
        if before_it is None:
            step.inputs = [self.needed(name) for name in step.inputs]
        else:
            output, changed = step.outputs[0], f"{step.outputs[0]} before it is transposed"
            _, order, transposition = self._transposed[before_it]
            step.inputs = [self._source(name) for name in step.inputs]
            step.outputs = [changed]
            self._transposed[output] = changed, order, transposition
        self.steps.append(step)

    def needed(self, name: str) -> str:
        """The value of this name is to exist; returns the name under which it does."""
        if name not in self._transposed or name in self._made:
            return name
        source, order, like = self._transposed[name]
        if order == tuple(range(len(order))) and name not in self._results:
            return source
        self._made.add(name)
        self.steps.append(
            Step(
                "Transpose",
                lambda x: x.permute(order),
                [source],
                [name],
                [False],
                {**like.attributes, "perm": list(order)},
            )
        )
        return name

    def _source(self, name: str) -> str:
        return self._transposed[name][0] if name in self._transposed else name

    def _before_transposition(self, step: Step) -> str | None:
        """A transposed input of a step that may as well be done before the transposition."""
        if any(step.host) or step.kind not in _ONE_VALUE | _TWO_VALUES or len(step.outputs) != 1:
            return None
        values = [name for name in step.inputs if not self._is_number(name)]
        orders = {self._transposed[name][1] for name in values if name in self._transposed}
        if len(orders) != 1 or any(name not in self._transposed for name in values):
            return None
        return values[0]

    def _is_number(self, name: str) -> bool:
        value = self._constants.get(name)
        return value is not None and value.numel() == 1 and value.ndim <= 1
