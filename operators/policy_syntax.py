"""CEL conditions as syntax trees, every node with its place in the text.

The package that evaluates CEL keeps its tree to itself, and without one neither names and types
can be checked nor simple conditions be compiled. The grammar is the one of the CEL specification.
What is read here is bounded in length, depth and breadth, because a policy may arrive by a Kafka
topic, and the package's own parser runs out of stack, and takes the process along, at some ten
thousand nested or chained parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

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
    children,
)

MAX_LENGTH = 20_000
"""Characters in a condition: a list of two thousand words."""
MAX_DEPTH = 40
"""Nested brackets, and selections or signs in a row."""
MAX_TREE_DEPTH = 100
"""Both together. Whatever walks over the tree calls itself for each level."""

MACROS = frozenset({"exists", "all", "exists_one", "existsOne", "filter", "map"})


class ConditionSyntaxError(ValueError):
    """Not a CEL expression. `offset` counts characters from the start of the text."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


_TOKEN = re.compile(
    r"""
    (?P<blank>[\ \t\r\n\f]+|//[^\n]*)
  | (?P<string>[bB]?[rR]?(?:'{3}.*?'{3}|"{3}.*?"{3}|'(?:\\.|[^'\\\r\n])*'|"(?:\\.|[^"\\\r\n])*"))
  | (?P<double>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?)
  | (?P<int>0x[0-9a-fA-F]+|\d+)(?P<unsigned>[uU]?)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<mark>&&|\|\||==|!=|<=|>=|[-+*/%!<>()\[\]{}.,?:])
    """,
    re.VERBOSE | re.DOTALL,
)
_RELATIONS = frozenset({"<", "<=", ">", ">=", "==", "!=", "in"})
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|X([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})"
    r"|([0-3][0-7]{2})|(.))",
    re.DOTALL,
)
_SINGLE_ESCAPES = {
    **dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True)),
    **{mark: mark for mark in "\\?\"'`"},
}
_END = "the end of the condition"


def parse(text: str) -> Node:
    """The syntax tree of `text`.

    Raises:
        ConditionSyntaxError
    """
    if len(text) > MAX_LENGTH:
        raise ConditionSyntaxError(
            f"the condition has {len(text)} characters; at most {MAX_LENGTH} are read", 0
        )
    tree = _Parser(text).whole()
    level: list[Node] = [tree]
    for _ in range(MAX_TREE_DEPTH):
        level = [child for node in level for child in children(node)]
        if not level:
            return tree
    raise ConditionSyntaxError(f"more than {MAX_TREE_DEPTH} levels deep; split the rule", 0)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


class _Parser:
    """Recursive descent, one method a level of precedence, the loosest first."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0

    def whole(self) -> Node:
        node = self._expression()
        if self._peek().kind != "end":
            raise self._unexpected("an operator")
        return node

    def _expression(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ConditionSyntaxError(
                f"nested more than {MAX_DEPTH} deep; split the rule", self._peek().at
            )
        condition = self._joined("||", AnyOf, self._conjunction)
        if self._peek().text == "?":
            at = self._take().at
            yes = self._joined("||", AnyOf, self._conjunction)
            self._expect(":")
            condition = Choice(condition, yes, self._expression(), at)
        self._depth -= 1
        return condition

    def _conjunction(self) -> Node:
        return self._joined("&&", AllOf, self._relation)

    def _joined(
        self, mark: str, kind: type[AllOf] | type[AnyOf], operand: Callable[[], Node]
    ) -> Node:
        operands = [operand()]
        at = self._peek().at
        while self._peek().text == mark and self._peek().kind == "mark":
            self._take()
            operands.append(operand())
        return operands[0] if len(operands) == 1 else kind(tuple(operands), at)

    def _relation(self) -> Node:
        return self._chain(_RELATIONS, self._sum)

    def _sum(self) -> Node:
        return self._chain(frozenset("+-"), self._product)

    def _product(self) -> Node:
        return self._chain(frozenset("*/%"), self._signed)

    def _chain(self, operators: frozenset[str], operand: Callable[[], Node]) -> Node:
        left = operand()
        length = 0
        while self._peek().kind in ("mark", "name") and self._peek().text in operators:
            token = self._take()
            length = self._longer(length, token)
            left = Binary(token.text, left, operand(), token.at)
        return left

    def _signed(self) -> Node:
        signs: list[_Token] = []
        while self._peek().kind == "mark" and self._peek().text in ("!", "-"):
            signs.append(self._take())
            self._longer(len(signs), signs[-1])
        node = self._member()
        for sign in reversed(signs):
            node = Not(node, sign.at) if sign.text == "!" else _negative(node, sign.at)
        return node

    def _member(self) -> Node:
        node = self._primary()
        length = 0
        while self._peek().kind == "mark" and self._peek().text in (".", "["):
            token = self._take()
            length = self._longer(length, token)
            if token.text == "[":
                node = Index(node, self._expression(), token.at)
                self._expect("]")
                continue
            name = self._take()
            if name.kind != "name":
                raise self._unexpected("a field or a function", name)
            if self._peek().text == "(" and self._peek().kind == "mark":
                node = _call(name, node, self._arguments())
            else:
                node = Select(node, name.text, name.at)
        return node

    def _primary(self) -> Node:
        token = self._take()
        if token.kind in ("int", "uint", "double", "string"):
            return _literal(token)
        if token.kind == "name":
            if token.text in ("true", "false"):
                return Literal(token.text == "true", "bool", token.at)
            if token.text == "null":
                return Literal(None, "null", token.at)
            if token.text == "in":
                raise self._unexpected("a value", token)
            if self._peek().text == "(" and self._peek().kind == "mark":
                return _call(token, None, self._arguments())
            return Name(token.text, token.at)
        if token.text == "(" and token.kind == "mark":
            node = self._expression()
            self._expect(")")
            return node
        if token.text == "[" and token.kind == "mark":
            return ListOf(self._items("]"), token.at)
        if token.text == "{" and token.kind == "mark":
            return MapOf(self._entries(), token.at)
        raise self._unexpected("a value", token)

    def _arguments(self) -> tuple[Node, ...]:
        self._expect("(")
        return self._items(")")

    def _items(self, end: str) -> tuple[Node, ...]:
        items: list[Node] = []
        while self._peek().text != end or self._peek().kind != "mark":
            items.append(self._expression())
            if self._peek().text == ",":
                self._take()
            elif self._peek().text != end:
                raise self._unexpected(f"',' or '{end}'")
        self._take()
        return tuple(items)

    def _entries(self) -> tuple[tuple[Node, Node], ...]:
        entries: list[tuple[Node, Node]] = []
        while self._peek().text != "}":
            key = self._expression()
            self._expect(":")
            entries.append((key, self._expression()))
            if self._peek().text == ",":
                self._take()
            elif self._peek().text != "}":
                raise self._unexpected("',' or '}'")
        self._take()
        return tuple(entries)

    def _longer(self, length: int, token: _Token) -> int:
        if length >= MAX_DEPTH:
            raise ConditionSyntaxError(
                f"more than {MAX_DEPTH} of these in a row; split the rule", token.at
            )
        return length + 1

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        if token.kind != "end":
            self._next += 1
        return token

    def _expect(self, mark: str) -> None:
        token = self._take()
        if token.text != mark or token.kind != "mark":
            raise self._unexpected(f"'{mark}'", token)

    def _unexpected(self, wanted: str, token: _Token | None = None) -> ConditionSyntaxError:
        token = token or self._peek()
        met = _END if token.kind == "end" else f"'{token.text}'"
        return ConditionSyntaxError(f"{met} where {wanted} was expected", token.at)


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            if text[at] in "\"'":
                raise ConditionSyntaxError("a string that does not end", at)
            raise ConditionSyntaxError(f"{text[at]!r} means nothing in CEL", at)
        kind = match.lastgroup or ""
        if kind != "blank":
            if kind == "unsigned":
                kind = "uint" if match["unsigned"] else "int"
            tokens.append(_Token(kind, match[0], at))
        at = match.end()
    tokens.append(_Token("end", "", len(text)))
    return tokens


def _literal(token: _Token) -> Literal:
    match token.kind:
        case "double":
            return Literal(float(token.text), "double", token.at)
        case "int":
            return Literal(int(token.text, 0 if "x" in token.text else 10), "int", token.at)
        case "uint":
            digits = token.text[:-1]
            return Literal(int(digits, 0 if "x" in digits else 10), "uint", token.at)
    prefix = re.match("[bBrR]*", token.text)[0].lower()  # type: ignore[index]
    if "b" in prefix:
        return Literal(None, "bytes", token.at)
    quoted = token.text[len(prefix) :]
    width = 3 if quoted[:3] in ("'''", '"""') and len(quoted) >= 6 else 1
    inside = quoted[width:-width]
    if "r" in prefix:
        return Literal(inside, "string", token.at)
    return Literal(_ESCAPE.sub(lambda found: _unescaped(found, token), inside), "string", token.at)


def _unescaped(found: re.Match[str], token: _Token) -> str:
    code = found[1] or found[2] or found[3] or found[4]
    if code or found[5]:
        point = int(code, 16) if code else int(found[5], 8)
        if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
            raise ConditionSyntaxError(f"'{found[0]}' is no character", token.at)
        return chr(point)
    if found[6] not in _SINGLE_ESCAPES:
        raise ConditionSyntaxError(
            f"'{found[0]}' is no escape in a string; write '\\\\' for a backslash, "
            "or r'…' around a regular expression",
            token.at,
        )
    return _SINGLE_ESCAPES[found[6]]


def _negative(node: Node, at: int) -> Node:
    """`-0.5` is a number, not an operation."""
    if isinstance(node, Literal) and node.kind in ("int", "double"):
        return Literal(-node.value, node.kind, at)  # type: ignore[operator]
    return Negative(node, at)


def _call(name: _Token, target: Node | None, arguments: tuple[Node, ...]) -> Node:
    if target is None or name.text not in MACROS or len(arguments) not in (2, 3):
        return Call(name.text, target, arguments, name.at)
    bound = arguments[0]
    if not isinstance(bound, Name) or (len(arguments) == 3 and name.text != "map"):
        return Call(name.text, target, arguments, name.at)
    condition = arguments[1] if len(arguments) == 3 else None
    return Macro(name.text, target, bound.name, condition, arguments[-1], name.at)
