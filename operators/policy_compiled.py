"""Conditions compiled to Python, where that provably gives what CEL gives.

Converting Python values to CEL values costs far more than a condition itself, and most conditions
compare a few typed fields with constants. Those become Python code that reads the findings as they
are. The rule that makes it safe: compiled code either gives CEL's value or raises. Every operation
that could differ is left out of it or raises `Undecided` (a comparison with NaN, which is an error
in CEL, or an operation that is not compiled), and whoever calls then asks CEL itself. Leaving
operands of `&&` and `||` unread is no difference: in CEL too, one false operand decides the first
and one true operand the second, whatever the others are, errors included.

The code is generated from the checked tree only: names of its own, and literals written by `repr`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from operators.policy_tree import (
    AllOf,
    AnyOf,
    Binary,
    Call,
    Choice,
    Index,
    ListOf,
    Literal,
    Macro,
    Name,
    Node,
    Not,
    Select,
)
from operators.policy_types import Scope, Types
from operators.policy_variables import (
    DOUBLE,
    STRING,
    VARIABLES,
    FrameView,
    Listing,
    Mapped,
    Record,
    Simple,
    Type,
    area,
)

Compiled = Callable[[FrameView], bool]

_EXACT = 2**53
"""Whole numbers below it are exact as doubles, which is how CEL compares them with doubles."""
_INT64 = 2**63
_MAX_OPERAND = 300
"""Characters of generated code. The operands of a comparison stand in it twice."""


class Undecided(Exception):  # noqa: N818 - a statement about the code, not a fault
    """The compiled code does not know what CEL would say."""


class _NotCompiled(Exception):  # noqa: N818 - found while compiling, and never leaves this file
    """A part that is not compiled."""


def compiled(node: Node, types: Types) -> Compiled | None:
    """`node` as a function of a frame's variables; `None` if too little of it can be compiled.

    The function gives a bool, or raises anything at all: then CEL decides.
    """
    writer = _Writer(types)
    try:
        code = writer.bool(node, _Names({}, {}))
    except _NotCompiled:
        return None
    # The names and literals in it are this module's own; see the module's docstring.
    function: Compiled = eval(  # noqa: S307
        compile(f"lambda view: {code}", "<policy condition>", "eval"),
        {
            "__builtins__": {},
            "any": any,
            "all": all,
            "sum": sum,
            "len": len,
            "area": _area,
            "entry": _entry,
            "whole": _whole,
            "undecided": _undecided,
        },
    )
    return function


def _undecided() -> bool:
    raise Undecided


def _entry(values: Mapping[str, float], key: str) -> float:
    """A score by its label, if it is a number that CEL orders as Python does."""
    value = values[key]
    if type(value) is not float or value != value:
        raise Undecided
    return value


def _area(box: Any, view: FrameView) -> float:
    value = area(box, view)
    if value != value:
        raise Undecided
    return value


def _whole(value: int) -> int:
    """The result of whole-number arithmetic, which CEL does in 64 bits."""
    if not -_INT64 <= value < _INT64:
        raise Undecided
    return value


@dataclass(frozen=True, slots=True)
class _Names:
    """The names that macros bind: their types, and what they are called in the generated code."""

    types: Scope
    code: Mapping[str, str]

    def with_bound(self, name: str, kind: Type) -> _Names:
        own = f"b{len(self.code)}_{len(self.types)}"
        return _Names({**self.types, name: kind}, {**self.code, name: own})


class _Writer:
    """Writes Python for each part, in parentheses where precedence could matter."""

    def __init__(self, types: Types) -> None:
        self._types = types

    def bool(self, node: Node, names: _Names) -> str:
        """Code for a truth value.

        Raises:
            _NotCompiled
        """
        match node:
            case Literal(bool() as value):
                return repr(value)
            case Not(operand):
                return f"(not {self.bool(operand, names)})"
            case AllOf(operands):
                return self._joined(" and ", operands, names)
            case AnyOf(operands):
                return self._joined(" or ", operands, names)
            case Choice(condition, yes, no):
                chosen = self.bool(yes, names), self.bool(no, names)
                return f"({chosen[0]} if {self.bool(condition, names)} else {chosen[1]})"
            case Binary():
                return self._comparison(node, names)
            case Call():
                return self._test(node, names)
            case Macro(kind, over, name, None, body) if kind in ("exists", "all", "exists_one"):
                return self._quantifier(kind, over, name, body, names)
        raise _NotCompiled

    def _joined(self, word: str, operands: tuple[Node, ...], names: _Names) -> str:
        """What is compiled stands first; what is not leaves the decision to CEL, if it is reached.

        Raises `_NotCompiled` if nothing is compiled.
        """
        done: list[str] = []
        for operand in operands:
            try:
                done.append(self.bool(operand, names))
            except _NotCompiled:
                continue
        if not done:
            raise _NotCompiled
        if len(done) < len(operands):
            done.append("undecided()")
        return f"({word.join(done)})"

    def _comparison(self, node: Binary, names: _Names) -> str:
        if node.operator == "in":
            return self._membership(node, names)
        left, right = self._value(node.left, names), self._value(node.right, names)
        kinds = [self._types.of(side, names.types) for side in (node.left, node.right)]
        numbers = all(isinstance(k, Simple) and k.name in ("int", "double") for k in kinds)
        strings = all(k == STRING for k in kinds)
        if len(left) + len(right) > _MAX_OPERAND or not (numbers or strings):
            raise _NotCompiled
        if node.operator in ("==", "!="):
            return f"({left} {node.operator} {right})"
        if node.operator not in ("<", "<=", ">", ">="):
            raise _NotCompiled
        plain = f"{left} {node.operator} {right}"
        doubtful = [
            code
            for code, side, kind in zip((left, right), (node.left, node.right), kinds, strict=True)
            if isinstance(kind, Simple)
            and kind.name == "double"
            and not isinstance(side, Literal)
            # These two have looked themselves.
            and not code.startswith(("entry(", "area("))
        ]
        if not doubtful:
            return f"({plain})"
        not_a_number = " or ".join(f"{code} != {code}" for code in doubtful)
        return f"({plain} or ({not_a_number}) and undecided())"

    def _membership(self, node: Binary, names: _Names) -> str:
        item = self._value(node.left, names)
        if self._types.of(node.left, names.types) != STRING:
            raise _NotCompiled
        match node.right:
            case ListOf(items) if all(
                isinstance(entry, Literal) and entry.kind == "string" for entry in items
            ):
                # A set display of constants becomes one frozen set when it is compiled.
                values = ", ".join(repr(entry.value) for entry in items)  # type: ignore[union-attr]
                return f"({item} in {{{values}}})" if items else "False"
            case Name(name) if name not in names.types and name in _TYPED_MAPS:
                return f"({item} in view.{name})"
        raise _NotCompiled

    def _test(self, node: Call, names: _Names) -> str:
        if node.target is None or len(node.arguments) != 1:
            raise _NotCompiled
        target, argument = self._text(node.target, names), self._text(node.arguments[0], names)
        match node.function:
            case "contains":
                return f"({argument} in {target})"
            case "startsWith":
                return f"{target}.startswith({argument})"
            case "endsWith":
                return f"{target}.endswith({argument})"
        raise _NotCompiled

    def _quantifier(self, kind: str, over: Node, name: str, body: Node, names: _Names) -> str:
        source = self._listing(over, names)
        inner = names.with_bound(name, self._types.item_of(over, names.types))
        bound, test = inner.code[name], self.bool(body, inner)
        if kind == "exists_one":
            return f"(sum([1 for {bound} in {source} if {test}]) == 1)"
        word = "any" if kind == "exists" else "all"
        return (
            f"{word}([{test} for {bound} in {source}])"
            if _cheap(over)
            else (f"{word}({test} for {bound} in {source})")
        )

    def _listing(self, node: Node, names: _Names) -> str:
        """Code for something to go over."""
        match node:
            case Name(name) if name not in names.types and name in _LISTS:
                return f"view.{name}"
            case ListOf(items) if items and all(
                isinstance(entry, Literal) and entry.kind == "string" for entry in items
            ):
                return "(" + "".join(f"{entry.value!r}, " for entry in items) + ")"  # type: ignore[union-attr]
            case Macro("filter", over, name, None, body):
                inner = names.with_bound(name, self._types.item_of(over, names.types))
                bound = inner.code[name]
                source = self._listing(over, names)
                return f"[{bound} for {bound} in {source} if {self.bool(body, inner)}]"
        raise _NotCompiled

    def _text(self, node: Node, names: _Names) -> str:
        if self._types.of(node, names.types) != STRING:
            raise _NotCompiled
        return self._value(node, names)

    def _value(self, node: Node, names: _Names) -> str:
        """Code for a number, a text, or one of the records that hold them."""
        match node:
            case Literal(str() as text):
                return repr(text)
            case Literal(value, "int" | "double") if abs(value or 0) < _EXACT:  # type: ignore[arg-type]
                return repr(value) if (value or 0) >= 0 else f"({value!r})"  # type: ignore[operator]
            case Name(name):
                if name in names.types:
                    return names.code[name]
                if name in _PLAIN:
                    return f"view.{name}"
            case Select(operand, field):
                return self._field(operand, field, names)
            case Index(operand, Literal(str() as key)):
                return self._entry(operand, key, names)
            case Call("size", None, (listing,)) | Call("size", listing, ()) if listing is not None:
                return f"len({self._listing(listing, names)})"
            case Binary(operator, left, right) if operator in ("+", "-", "*"):
                return self._arithmetic(operator, left, right, names)
        raise _NotCompiled

    def _arithmetic(self, operator: str, left: Node, right: Node, names: _Names) -> str:
        kinds = [self._types.of(side, names.types) for side in (left, right)]
        code = f"{self._value(left, names)} {operator} {self._value(right, names)}"
        if all(isinstance(kind, Simple) and kind.name == "int" for kind in kinds):
            return f"whole({code})"
        if all(isinstance(kind, Simple) and kind.name == DOUBLE.name for kind in kinds):
            return f"({code})"
        raise _NotCompiled

    def _field(self, operand: Node, field: str, names: _Names) -> str:
        kind = self._types.of(operand, names.types)
        if isinstance(kind, Mapped):
            return self._entry(operand, field, names)
        if not isinstance(kind, Record):
            raise _NotCompiled
        return kind.read.get(field, f"{{0}}.{field}").format(self._value(operand, names))

    def _entry(self, operand: Node, key: str, names: _Names) -> str:
        if not (isinstance(operand, Name) and operand.name not in names.types):
            raise _NotCompiled
        kind = VARIABLES.get(operand.name)
        if not (isinstance(kind, Mapped) and isinstance(kind.value, Simple)):
            raise _NotCompiled
        if kind.value.name != DOUBLE.name:
            raise _NotCompiled
        return f"entry(view.{operand.name}, {key!r})"


def _cheap(over: Node) -> bool:
    """Whether making the whole list of answers costs less than stopping at the first: a generator
    costs as much as ten tests of a constant text."""
    return isinstance(over, ListOf) and len(over.items) <= 8


_LISTS = frozenset(name for name, kind in VARIABLES.items() if isinstance(kind, Listing))
_TYPED_MAPS = frozenset(
    name
    for name, kind in VARIABLES.items()
    if isinstance(kind, Mapped) and isinstance(kind.value, Simple) and kind.value.name != "dyn"
)
_PLAIN = frozenset(
    name for name, kind in VARIABLES.items() if kind == STRING or isinstance(kind, Record)
)
