"""Regular expressions in time linear in the text, whatever the expression.

Python's own `re` tries alternatives one after the other, and a pattern such as `(a+)+b` takes hours
over thirty letters. Lists come from many hands, and texts from strangers. Rust's `regex` crate has
no such patterns: what it cannot do in linear time (back-references, looking around) it refuses. It
comes inside pydantic, whose settings this service has anyway, and is compiled once a list.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic_core import SchemaError, SchemaValidator, core_schema

_LONGEST_PATTERN = 500


class PatternError(Exception):
    """A regular expression cannot be used; the message says why."""


def compiled(pattern: str) -> SchemaValidator:
    """A check whether `pattern` occurs in a text: `compiled(p).isinstance_python(text)`.

    `^` and `$` are the ends of lines.

    Raises:
        PatternError
    """
    if len(pattern) > _LONGEST_PATTERN:
        raise PatternError(f"the expression is longer than {_LONGEST_PATTERN} characters")
    _compiled(pattern)  # by itself: its parentheses must not end ours
    found = _compiled(f"(?m:{pattern})")
    if found.isinstance_python(""):
        raise PatternError(f"the expression {pattern!r} matches the empty text, so every image")
    return found


def any_of(patterns: Sequence[str]) -> SchemaValidator | None:
    """One check for all of `patterns`, each of which compiles; `None` if they are too large to be
    one."""
    try:
        return _compiled("|".join(f"(?m:{pattern})" for pattern in patterns))
    except PatternError:
        return None


def _compiled(pattern: str) -> SchemaValidator:
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except (SchemaError, TypeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[-1].removeprefix("error: ") if lines else "it cannot be compiled"
        raise PatternError(f"the expression cannot be used: {reason}") from error
