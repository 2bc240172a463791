"""Explanations of rules: text with CEL in braces, filled in for the image that the rule fired on.

`"{objects.size()} objects in {feed}"`. The language in the braces is the one that conditions are
written in, so there is no second one to learn, and it is checked when the policy is loaded. It
reaches nothing but the variables, and cannot fail the image: what cannot be told becomes a question
mark. `{{` and `}}` stand for braces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from operators.policy_conditions import ConditionError, Context, Expression

UNKNOWN = "?"
MAX_VALUE = 200
"""Characters of one value. Text from a picture may be long, and a verdict is a small record."""
MAX_FILLED = 1_000
"""Characters of a filled explanation."""

_PIECE = re.compile(r"\{\{|\}\}|\{|\}|[^{}]+")


class Explanation:
    """A checked template.

    Raises:
        ConditionError: an expression in braces is wrong, or a brace has no partner. Its column
            counts from the start of the template.
    """

    def __init__(self, template: str) -> None:
        self.template = template
        self._parts: list[str | Expression] = []
        for text, is_expression, at in _parts(template):
            if not is_expression:
                self._parts.append(text)
                continue
            try:
                self._parts.append(Expression(text))
            except ConditionError as error:
                line = template[:at].count("\n") + error.line
                column = error.column
                if error.line == 1:
                    column += at - (template[:at].rfind("\n") + 1)
                raise ConditionError(f"in braces: {error.message}", line, column) from error
        self._plain = "".join(part for part in self._parts if isinstance(part, str))

    @property
    def expressions(self) -> list[Expression]:
        """What stands in braces."""
        return [part for part in self._parts if isinstance(part, Expression)]

    def filled(self, context: Context) -> str:
        """The explanation for one image."""
        if not self.expressions:
            return self._plain
        told = [part if isinstance(part, str) else _told(part, context) for part in self._parts]
        return _shortened("".join(told), MAX_FILLED)


def _parts(template: str) -> list[tuple[str, bool, int]]:
    """Pieces of the template: text or expression, and where it begins."""
    parts: list[tuple[str, bool, int]] = []
    opened: int | None = None
    for match in _PIECE.finditer(template):
        piece = match[0]
        if opened is not None:
            if piece == "}":
                parts.append((template[opened : match.start()], True, opened))
                opened = None
            elif piece[0] in "{}":
                raise _brace(template, match.start(), "braces within braces cannot be read")
        elif piece == "{":
            opened = match.end()
        elif piece == "}":
            raise _brace(template, match.start(), "'}' closes nothing; write '}}' for a brace")
        else:
            parts.append((piece[0] if piece in ("{{", "}}") else piece, False, match.start()))
    if opened is not None:
        raise _brace(template, opened - 1, "'{' is not closed; write '{{' for a brace")
    return parts


def _brace(template: str, at: int, message: str) -> ConditionError:
    before = template[:at]
    return ConditionError(message, before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1)


def _told(expression: Expression, context: Context) -> str:
    try:
        value = expression.value(context)
    except ValueError:
        return UNKNOWN
    return _shortened(_written(value), MAX_VALUE)


def _written(value: Any) -> str:
    match value:
        case None:
            return UNKNOWN
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.3g}"
        case str():
            return value
        case Mapping():
            return ", ".join(f"{key}: {_written(item)}" for key, item in value.items()) or "none"
        case Sequence():
            return ", ".join(_written(item) for item in value) or "none"
    return str(value)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
