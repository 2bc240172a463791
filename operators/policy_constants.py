"""Conditions that no image can change: always true, always false, or at odds with themselves.

Nothing here claims more than it can prove: what is not recognised is taken to depend on the image.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from operators.policy_tree import (
    AllOf,
    AnyOf,
    Binary,
    Index,
    ListOf,
    Literal,
    Macro,
    Name,
    Node,
    Not,
    Select,
    children,
)
from operators.policy_types import FLIPPED


def constant(node: Node) -> bool | None:
    """The value of `node` where no image can change it; `None` where one may."""
    match node:
        case Literal(bool() as value):
            return value
        case Not(operand):
            inner = constant(operand)
            return None if inner is None else not inner
        case AllOf(operands):
            values = [constant(operand) for operand in operands]
            if False in values or _contradictory(operands):
                return False
            return True if all(values) else None
        case AnyOf(operands):
            values = [constant(operand) for operand in operands]
            if True in values:
                return True
            return False if all(value is False for value in values) else None
        case Macro("exists", over, _, _, body):
            if constant(body) is False or over == ListOf((), over.at):
                return False
    return None


def nested_macros(node: Node) -> int:
    """How many macros stand inside one another: each goes over its list for every item of the one
    around it."""
    if isinstance(node, Macro):
        inside = [node.body, *([node.condition] if node.condition is not None else [])]
        return max(nested_macros(node.over), 1 + max(map(nested_macros, inside)))
    return max(map(nested_macros, children(node)), default=0)


def _contradictory(operands: Iterable[Node]) -> bool:
    """Whether comparisons of one thing with numbers, or with texts, cannot all hold."""
    lowest: dict[str, tuple[float, bool]] = {}
    highest: dict[str, tuple[float, bool]] = {}
    equal: dict[str, Any] = {}
    for node in operands:
        if not isinstance(node, Binary) or node.operator not in FLIPPED:
            continue
        left, right, operator = node.left, node.right, node.operator
        if isinstance(left, Literal):
            left, right, operator = right, left, FLIPPED[operator]
        path = _path(left)
        if path is None or not isinstance(right, Literal) or isinstance(right.value, bool):
            continue
        value = right.value
        if operator == "==" and isinstance(value, str):
            if equal.setdefault(path, value) != value:
                return True
        elif isinstance(value, int | float):
            if operator in (">", ">=", "=="):
                bound = (float(value), operator == ">")
                lowest[path] = max(lowest.get(path, bound), bound)
            if operator in ("<", "<=", "=="):
                upper = (float(value), operator != "<")
                highest[path] = min(highest.get(path, upper), upper)
    return any(
        low > highest[path][0] or (low == highest[path][0] and (strict or not highest[path][1]))
        for path, (low, strict) in lowest.items()
        if path in highest
    )


def _path(node: Node) -> str | None:
    match node:
        case Name(name):
            return name
        case Select(operand, field_name):
            inner = _path(operand)
            return None if inner is None else f"{inner}.{field_name}"
        case Index(operand, Literal(str() as key)):
            inner = _path(operand)
            return None if inner is None else f"{inner}.{key}"
    return None
