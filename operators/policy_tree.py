"""The parts that a CEL condition consists of, each with its place in the text.

`at` counts characters from the start of the condition, to where a reader would point: the name of
a field or function, the sign of an operator.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Literal:
    """`kind` is bool, int, uint, double, string, bytes or null; the value of bytes is not kept."""

    value: bool | int | float | str | None
    kind: str
    at: int


@dataclass(frozen=True, slots=True)
class Name:
    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Select:
    """`operand.field`."""

    operand: Node
    field: str
    at: int


@dataclass(frozen=True, slots=True)
class Index:
    """`operand[key]`."""

    operand: Node
    key: Node
    at: int


@dataclass(frozen=True, slots=True)
class Call:
    """`target.function(…)`, or `function(…)` where there is no target. `has(a.b)` is one too."""

    function: str
    target: Node | None
    arguments: tuple[Node, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Macro:
    """`over.exists(name, body)` and its like; `filter` of the three-part `map` too."""

    kind: str
    over: Node
    name: str
    condition: Node | None
    body: Node
    at: int


@dataclass(frozen=True, slots=True)
class ListOf:
    items: tuple[Node, ...]
    at: int


@dataclass(frozen=True, slots=True)
class MapOf:
    items: tuple[tuple[Node, Node], ...]
    at: int


@dataclass(frozen=True, slots=True)
class Not:
    operand: Node
    at: int


@dataclass(frozen=True, slots=True)
class Negative:
    operand: Node
    at: int


@dataclass(frozen=True, slots=True)
class Binary:
    """`operator` is one of < <= > >= == != in + - * / %."""

    operator: str
    left: Node
    right: Node
    at: int


@dataclass(frozen=True, slots=True)
class AllOf:
    """`a && b && …`, in the order of the text."""

    operands: tuple[Node, ...]
    at: int


@dataclass(frozen=True, slots=True)
class AnyOf:
    """`a || b || …`, in the order of the text."""

    operands: tuple[Node, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Choice:
    """`condition ? yes : no`."""

    condition: Node
    yes: Node
    no: Node
    at: int


Node = (
    Literal
    | Name
    | Select
    | Index
    | Call
    | Macro
    | ListOf
    | MapOf
    | Not
    | Negative
    | Binary
    | AllOf
    | AnyOf
    | Choice
)


def children(node: Node) -> tuple[Node, ...]:
    """The parts of `node`, in the order of the text."""
    match node:
        case Literal() | Name():
            return ()
        case Select() | Not() | Negative():
            return (node.operand,)
        case Index():
            return (node.operand, node.key)
        case Call():
            return ((node.target,) if node.target else ()) + node.arguments
        case Macro():
            own = (node.condition,) if node.condition else ()
            return (node.over, *own, node.body)
        case ListOf():
            return node.items
        case MapOf():
            return tuple(part for entry in node.items for part in entry)
        case Binary():
            return (node.left, node.right)
        case AllOf() | AnyOf():
            return node.operands
        case Choice():
            return (node.condition, node.yes, node.no)
