"""Conditions of policy rules: CEL expressions, checked when they are loaded and run once a frame.

A condition is parsed twice: by the package that evaluates CEL, which has the last word on what it
means, and by this one, to check names and types and to compile what can be compiled. Evaluation
tries the compiled form and asks CEL where that does not know.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from typing import Any

import cel

from operators.policy_compiled import compiled
from operators.policy_constants import constant, nested_macros
from operators.policy_syntax import ConditionSyntaxError, parse
from operators.policy_tree import Call, Literal, Node, children
from operators.policy_types import EXTENSIONS, ConditionTypeError, Doubt, Types
from operators.policy_variables import BOOL, DYN, FrameView, Needs, cel_value

MOST_NESTED_MACROS = 3
"""A hundred objects compared three by three are a million steps, some 50 ms; four by four would
hold up a worker for seconds."""

# It logs each function that fails, once an image and with the values, which may be text from
# pictures. The verdict says what failed, and the policy logs it once a minute.
logging.getLogger("cel").setLevel(logging.CRITICAL)

_PARSE_ERROR = re.compile(r"<input>:(?P<line>\d+):(?P<column>\d+): (?P<message>[^\n]*)")
_PATTERN_ERROR = re.compile(
    r"not a valid regex: (?:.*\berror: )?(?P<reason>.*?)\.? Check function arguments"
)
_MATCHES = cel.compile("''.matches(pattern)")
_UNDEFINED = re.compile(r"Undefined variable or function: '(\w+)'")


class ConditionError(ValueError):
    """A condition that can never work. `line` and `column` count from 1 inside the expression."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


class Expression:
    """A compiled CEL expression over the variables of a frame, of any type.

    Attributes:
        doubts: what works and can hardly be meant.
        variables, fields: the names that it reads.

    Raises:
        ConditionError: the expression does not parse, or names a variable, function or field that
            no frame has, or mixes types.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        types = Types()
        try:
            self.tree: Node = parse(source)
            self.type = types.of(self.tree, {})
        except ConditionSyntaxError as error:
            raise ConditionError(
                f"CEL syntax error: {error.message}", *_line_and_column(source, error.offset)
            ) from error
        except ConditionTypeError as error:
            raise ConditionError(error.message, *_line_and_column(source, error.offset)) from error
        for call, reason in _useless_patterns(self.tree):
            raise ConditionError(
                f"the regular expression cannot be used: {reason}",
                *_line_and_column(source, call.at),
            )
        if nested_macros(self.tree) > MOST_NESTED_MACROS:
            raise ConditionError(
                f"more than {MOST_NESTED_MACROS} macros inside one another take too long for an "
                "image with many objects; split the rule"
            )
        try:
            self._program = cel.compile(source)
        except ValueError as error:
            raise _parse_error(str(error)) from error
        self._types = types
        self.doubts: tuple[Doubt, ...] = tuple(types.doubts)
        self.variables = frozenset(types.variables)
        self.fields = frozenset(types.fields)
        self.functions = {name: EXTENSIONS[name] for name in types.functions if name in EXTENSIONS}

    def value(self, context: Context) -> Any:
        """What the expression gives, by CEL.

        Raises:
            ValueError: it could not be evaluated.
        """
        try:
            return self._program.execute(context.for_cel(self.variables))
        except KeyError as error:
            raise ValueError(f"there is no key {error}") from error
        except (IndexError, RuntimeError, TypeError, ValueError, ArithmeticError) as error:
            raise ValueError(_cause(str(error))) from error


class Condition(Expression):
    """An expression that is true or false.

    Safe to evaluate from several threads at once: each evaluation has a context of its own.
    """

    def __init__(self, source: str) -> None:
        super().__init__(source)
        if self.type not in (BOOL, DYN):
            raise ConditionError(
                "the condition is neither true nor false; compare it with something"
            )
        self.always = constant(self.tree)
        """Its value if no image can change it, else `None`."""
        self.compiled = compiled(self.tree, self._types)

    def place(self, doubt: Doubt) -> tuple[int, int]:
        """Line and column of `doubt` inside the expression, from 1."""
        return _line_and_column(self.source, doubt.offset)

    def holds(self, context: Context) -> bool:
        """Whether the condition is true.

        Raises:
            ValueError: it could not be evaluated, or is neither true nor false.
        """
        if self.compiled is not None:
            try:
                return self.compiled(context.view)
            except Exception:  # noqa: BLE001, S110 - whatever it was, CEL decides and says why
                pass
        return self.holds_in_cel(context)

    def holds_in_cel(self, context: Context) -> bool:
        """`holds`, always by CEL."""
        value = self.value(context)
        if not isinstance(value, bool):
            raise ValueError(f"the condition gave {type(value).__name__} instead of true or false")
        return value


class Context:
    """The variables of one frame, converted for CEL at most once each, when first needed."""

    __slots__ = ("_cel", "_converted", "_source", "view")

    def __init__(self, source: ContextBuilder, view: FrameView) -> None:
        self._source = source
        self.view = view
        self._cel: cel.Context | None = None
        self._converted: set[str] = set()

    def for_cel(self, variables: Iterable[str]) -> cel.Context:
        """A CEL context with at least `variables`. One that cannot be converted is left out, so
        that only the conditions that read it fail."""
        context = self._cel
        if context is None:
            context = self._cel = cel.Context()
            for name, function in self._source.functions.items():
                context.add_function(name, function)
        for name in variables:
            if name in self._converted:
                continue
            self._converted.add(name)
            try:
                context.add_variable(name, cel_value(name, self.view, self._source.needs))
            except ValueError:
                # A producer's metadata may hold what CEL has no type for. The conditions that
                # read it say so in the verdict.
                continue
        return context


class ContextBuilder:
    """What a set of expressions needs of each frame."""

    def __init__(self, expressions: Iterable[Expression]) -> None:
        expressions = list(expressions)
        fields = frozenset[str]().union(*(e.fields for e in expressions))
        self.functions = {n: f for e in expressions for n, f in e.functions.items()}
        # An object that is indexed by name, or compared as a whole, shows all that it has.
        plain = any(re.search(r"objects|faces", e.source) and "[" in e.source for e in expressions)
        self.needs = Needs(boxes=plain or "box" in fields, areas=plain or "area" in fields)

    def context(self, view: FrameView) -> Context:
        """A context for one frame."""
        return Context(self, view)


def _useless_patterns(node: Node) -> Iterator[tuple[Call, str]]:
    """Calls of `matches` whose pattern can be seen here and will always fail, and why: CEL says so
    only when an image comes, and then every image would go to review."""
    if isinstance(node, Call) and node.function == "matches" and node.arguments:
        pattern = node.arguments[-1]
        if isinstance(pattern, Literal) and isinstance(pattern.value, str):
            try:
                _MATCHES.execute({"pattern": pattern.value})
            except (ValueError, RuntimeError) as error:
                yield node, _pattern_error(str(error))
    for part in children(node):
        yield from _useless_patterns(part)


def _pattern_error(text: str) -> str:
    found = _PATTERN_ERROR.search(" ".join(text.split()))
    return found["reason"].rstrip(".") if found else "it is none of RE2's syntax"


def _parse_error(text: str) -> ConditionError:
    match = _PARSE_ERROR.search(text)
    if match is None:
        return ConditionError(text)
    message = re.sub(r"expecting \{.*", "expecting a value or an operator", match["message"])
    message = message.replace("'<EOF>'", "the end of the condition").removeprefix("Syntax error: ")
    return ConditionError(f"CEL syntax error: {message}", int(match["line"]), int(match["column"]))


def _line_and_column(text: str, index: int) -> tuple[int, int]:
    before = text[:index]
    return before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1


def _cause(message: str) -> str:
    """What CEL said, made fit for a verdict: its explanations run to a paragraph."""
    if match := _UNDEFINED.search(message):
        # Names were checked at load, so it is the value that has the wrong type, or none in CEL.
        return f"'{match[1]}' cannot be used with this image's values: one has an unsuitable type"
    message = " ".join(message.split())
    return message if len(message) <= 200 else message[:200].rsplit(" ", 1)[0] + " …"
