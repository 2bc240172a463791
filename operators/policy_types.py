"""Checks conditions before they meet an image: names, fields, functions, types, and sense.

CEL finds a misspelt field or a number compared with a text only when evaluation reaches it, which
for a rare rule may be months after it was written. What can never work is refused here; what works
but cannot be meant (a threshold above 1, a condition that no image meets) is a warning that
`imagewire policy check` prints.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cel.stdlib import STDLIB_FUNCTIONS

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
    MapOf,
    Name,
    Negative,
    Node,
    Not,
    Select,
)
from operators.policy_variables import (
    BOOL,
    DOUBLE,
    DYN,
    INT,
    STRING,
    VARIABLES,
    Listing,
    Mapped,
    Record,
    Simple,
    Type,
)

Scope = Mapping[str, Type]

CORE_FUNCTIONS = frozenset(
    {"size", "contains", "startsWith", "endsWith", "matches", "type", "dyn", "has"}
    | {"int", "uint", "double", "string", "bytes", "timestamp", "duration"}
    | {"getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear"}
    | {"getHours", "getMinutes", "getSeconds", "getMilliseconds"}
)
# The package keeps cel-go's extension functions apart; namespaced ones (`math.abs`) are left out
# because nothing tells their namespace from a variable.
EXTENSIONS: Mapping[str, Any] = {
    name: function
    for name, function in STDLIB_FUNCTIONS.items()
    if "." not in name and name not in CORE_FUNCTIONS
}

_RESULTS: Mapping[str, Type] = {
    **dict.fromkeys(("contains", "startsWith", "endsWith", "matches", "has"), BOOL),
    **dict.fromkeys(("size", "int"), INT),
    **dict.fromkeys(("lowerAscii", "upperAscii", "string", "trim", "replace", "join"), STRING),
    "double": DOUBLE,
}
_ON_STRINGS = frozenset({"contains", "startsWith", "endsWith", "matches"})
_ORDERS = frozenset({"<", "<=", ">", ">="})
_NUMBERS = ("int", "uint", "double")
FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


class ConditionTypeError(ValueError):
    """A condition that can never work. `offset` counts characters from its start."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something that works and can hardly be meant."""

    message: str
    offset: int


@dataclass(slots=True)
class Types:
    """The types of a condition's parts, and the doubts that came up while they were found.

    Every part is typed in the one scope that it stands in, so its type is remembered.
    """

    doubts: list[Doubt] = field(default_factory=list)
    variables: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    _known: dict[int, Type] = field(default_factory=dict)

    def of(self, node: Node, scope: Scope) -> Type:
        """The type of `node`, `scope` holding the names that macros around it bind.

        Raises:
            ConditionTypeError
        """
        found = self._known.get(id(node))
        if found is None:
            found = self._known[id(node)] = self._infer(node, scope)
        return found

    def item_of(self, over: Node, scope: Scope) -> Type:
        """What a macro's name stands for when it goes over `over`."""
        match self.of(over, scope):
            case Listing(item):
                return item
            case Mapped():
                return STRING
            case Simple("dyn"):
                return DYN
            case other:
                raise ConditionTypeError(f"{_called(other)} is no list to go over", over.at)

    def _infer(self, node: Node, scope: Scope) -> Type:
        match node:
            case Literal(_, kind):
                return Simple(kind) if kind in (*_NUMBERS, "bool", "string") else DYN
            case Name(name, at):
                return self._variable(name, at, scope)
            case Select():
                return self._field(node, scope)
            case Index(operand, key):
                self.of(key, scope)
                match self.of(operand, scope):
                    case Listing(item):
                        return item
                    case Mapped(value):
                        return value
                return DYN
            case Call():
                return self._call(node, scope)
            case Macro():
                return self._macro(node, scope)
            case ListOf(items):
                kinds = [self.of(item, scope) for item in items]
                same = kinds and all(_base(kind) == _base(kinds[0]) for kind in kinds)
                return Listing(kinds[0] if same else DYN)
            case MapOf(items):
                for entry in items:
                    for part in entry:
                        self.of(part, scope)
                return Mapped(DYN)
            case Not(operand):
                self._must_be_bool(operand, scope, "!")
                return BOOL
            case Negative(operand):
                return self.of(operand, scope)
            case AllOf(operands) | AnyOf(operands):
                for operand in operands:
                    self._must_be_bool(operand, scope, "&&" if isinstance(node, AllOf) else "||")
                return BOOL
            case Choice(condition, yes, no):
                self._must_be_bool(condition, scope, "?")
                one, other = self.of(yes, scope), self.of(no, scope)
                return one if _base(one) == _base(other) else DYN
            case Binary():
                return self._binary(node, scope)

    def _variable(self, name: str, at: int, scope: Scope) -> Type:
        if name in scope:
            return scope[name]
        if name not in VARIABLES:
            raise ConditionTypeError(
                f"unknown variable '{name}'{nearest(name, VARIABLES)}; "
                f"a condition reads {', '.join(VARIABLES)}",
                at,
            )
        self.variables.add(name)
        return VARIABLES[name]

    def _field(self, node: Select, scope: Scope) -> Type:
        self.fields.add(node.field)
        match self.of(node.operand, scope):
            case Record(_, fields):
                if node.field not in fields:
                    owner = node.operand.name if isinstance(node.operand, Name) else "it"
                    raise ConditionTypeError(
                        f"unknown field '{node.field}' of '{owner}'"
                        f"{nearest(node.field, fields)}; it has {', '.join(sorted(fields))}",
                        node.at,
                    )
                return fields[node.field]
            case Mapped(value):
                return value
            case Simple("dyn"):
                return DYN
            case other:
                raise ConditionTypeError(f"{_called(other)} has no field '{node.field}'", node.at)

    def _call(self, node: Call, scope: Scope) -> Type:
        known = CORE_FUNCTIONS | EXTENSIONS.keys()
        if node.function not in known:
            raise ConditionTypeError(
                f"unknown function '{node.function}'{nearest(node.function, known)}", node.at
            )
        self.functions.add(node.function)
        target = self.of(node.target, scope) if node.target is not None else None
        for argument in node.arguments:
            self.of(argument, scope)
        if node.function in _ON_STRINGS and _definite(target) and _base(target) != "string":
            raise ConditionTypeError(
                f"'{node.function}' is for texts, and this is {_called(target)}", node.at
            )
        return _RESULTS.get(node.function, DYN)

    def _macro(self, node: Macro, scope: Scope) -> Type:
        inner = {**scope, node.name: self.item_of(node.over, scope)}
        if node.kind != "map":
            self._must_be_bool(node.body, inner, node.kind)
        if node.condition is not None:
            self._must_be_bool(node.condition, inner, node.kind)
        body = self.of(node.body, inner)
        if node.kind == "filter":
            return Listing(inner[node.name])
        return Listing(body) if node.kind == "map" else BOOL

    def _must_be_bool(self, node: Node, scope: Scope, user: str) -> None:
        found = self.of(node, scope)
        if _definite(found) and _base(found) != "bool":
            raise ConditionTypeError(
                f"'{user}' needs true or false, and this is {_called(found)}", node.at
            )

    def _binary(self, node: Binary, scope: Scope) -> Type:
        left, right = self.of(node.left, scope), self.of(node.right, scope)
        if node.operator == "in":
            if isinstance(right, Simple) and _definite(right):
                hint = "; write b.contains(a) to look for a in b" if right == STRING else ""
                raise ConditionTypeError(f"'in' needs a list or a map{hint}", node.at)
            return BOOL
        both = _definite(left) and _definite(right)
        alike = _base(left) == _base(right) or (_is_number(left) and _is_number(right))
        if node.operator in ("==", "!="):
            if both and not alike:
                self._doubt(
                    f"{_called(left)} never equals {_called(right)}: this is always "
                    f"{'false' if node.operator == '==' else 'true'}",
                    node.at,
                )
            self._range(node, left, right)
            return BOOL
        if node.operator in _ORDERS:
            if both and not (alike and (_is_number(left) or _base(left) == "string")):
                raise ConditionTypeError(
                    f"'{node.operator}' cannot compare {_called(left)} with {_called(right)}",
                    node.at,
                )
            self._range(node, left, right)
            return BOOL
        if both and _base(left) != _base(right):
            raise ConditionTypeError(
                f"'{node.operator}' cannot join {_called(left)} and {_called(right)}; "
                "double(…) and int(…) convert numbers",
                node.at,
            )
        if not both:
            return DYN
        return Simple(_base(left)) if isinstance(left, Simple) else left

    def _range(self, node: Binary, left: Type, right: Type) -> None:
        """A score, which lies between 0 and 1, compared with a number that does not."""
        sides = ((left, node.right, node.operator), (right, node.left, FLIPPED[node.operator]))
        for kind, other, operator in sides:
            if not (isinstance(kind, Simple) and kind.unit and isinstance(other, Literal)):
                continue
            number = other.value
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            above = number > 1 or (number == 1 and operator == ">")
            below = number < 0 or (number == 0 and operator == "<")
            if above or below:
                always = (
                    (operator in ("<", "<=", "!="))
                    if above
                    else (operator not in ("<", "<=", "=="))
                )
                self._doubt(
                    f"the threshold {number} is out of range: a score lies between 0 and 1, "
                    f"so this is always {'true' if always else 'false'}",
                    other.at,
                )

    def _doubt(self, message: str, at: int) -> None:
        self.doubts.append(Doubt(message, at))


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'scores'?)`, or nothing."""
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""


def _definite(kind: Type | None) -> bool:
    return kind is not None and kind != DYN


def _is_number(kind: Type) -> bool:
    return isinstance(kind, Simple) and kind.name in _NUMBERS


def _base(kind: Type | None) -> str:
    match kind:
        case Simple(name):
            return name
        case Record(name):
            return name
        case Listing():
            return "list"
        case Mapped():
            return "map"
    return ""


def _called(kind: Type | None) -> str:
    names = {"bool": "true or false", "int": "a whole number", "uint": "a whole number"}
    names |= {"double": "a number", "string": "a text", "image": "an image", "object": "an object"}
    base = _base(kind)
    return names.get(base, f"a {base}")
