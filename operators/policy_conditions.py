"""Conditions of policy rules: CEL expressions, checked when they are loaded and run once a frame.

CEL finds a misspelt variable, function or field only when evaluation reaches it, which for a rare
rule may be months after the policy was written. So names are checked here against what frames
offer, and every complaint carries the line and column inside the expression.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

import cel
from cel.stdlib import STDLIB_FUNCTIONS

from operators.findings import Detection, Findings
from operators.frame import Frame

VARIABLES = (
    "objects",
    "texts",
    "text",
    "words",
    "scores",
    "fingerprint",
    "image",
    "metadata",
    "feed",
)
"""What a condition may read; docs/policy.md describes each."""

FIELDS: dict[str, frozenset[str]] = {
    "objects": frozenset({"label", "score", "box", "area"}),
    "texts": frozenset({"text", "score"}),
    "fingerprint": frozenset({"content_id", "pdq", "pdq_quality"}),
    "image": frozenset({"width", "height", "format", "bytes"}),
}
"""The fields of the variables whose shape is fixed: of each element, for the two lists."""

_CORE_FUNCTIONS = frozenset(
    {"size", "contains", "startsWith", "endsWith", "matches", "type", "dyn", "has"}
    | {"int", "uint", "double", "string", "bytes", "timestamp", "duration"}
    | {"getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear"}
    | {"getHours", "getMinutes", "getSeconds", "getMilliseconds"}
)
# The package keeps cel-go's extension functions apart; namespaced ones (`math.abs`) are left out
# because static analysis cannot tell their namespace from a variable.
_EXTENSIONS: dict[str, Any] = {
    name: function for name, function in STDLIB_FUNCTIONS.items() if "." not in name
}

_STRING_OR_COMMENT = re.compile(
    r"""[rRbB]{0,2}(?:'{3}.*?'{3}|"{3}.*?"{3}|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*")|//[^\n]*""",
    re.DOTALL,
)
_MACRO = re.compile(
    r"(?:(?<![\w.])(?P<over>\w+)\s*)?\.\s*(?:exists|all|exists_one|existsOne|map|filter)"
    r"\s*\(\s*(?P<bound>[A-Za-z_]\w*)\s*,"
)
_PARSE_ERROR = re.compile(r"<input>:(?P<line>\d+):(?P<column>\d+): (?P<message>[^\n]*)")
_UNDEFINED = re.compile(r"Undefined variable or function: '(\w+)'")
_NOT_A_WORD = re.compile(r"[\W_]+")


class ConditionError(ValueError):
    """A condition that can never work. `line` and `column` count from 1 inside the expression."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


class Condition:
    """A compiled CEL expression over the variables of a frame.

    Safe to evaluate from several threads at once: each evaluation has a context of its own.

    Raises:
        ConditionError: the expression does not parse, or names a variable, function or field that
            no frame has.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        try:
            self._program = cel.compile(source)
        except ValueError as error:
            raise _parse_error(str(error)) from error
        code = _STRING_OR_COMMENT.sub(_blank, source)
        bound = _bound_names(code)
        self.variables = frozenset(self._program.variables()) - bound.keys()
        self.functions = {
            name: _EXTENSIONS[name] for name in self._program.functions() if name in _EXTENSIONS
        }
        self._check_variables(code)
        self._check_functions(code)
        _check_fields(code, bound)

    def _check_variables(self, code: str) -> None:
        for name in sorted(self.variables - set(VARIABLES)):
            raise ConditionError(
                f"unknown variable '{name}'{_nearest(name, VARIABLES)}; "
                f"a condition reads {', '.join(VARIABLES)}",
                *_position(code, rf"(?<![\w.]){name}\b"),
            )

    def _check_functions(self, code: str) -> None:
        known = _CORE_FUNCTIONS | _EXTENSIONS.keys()
        for name in self._program.functions():
            if name.isidentifier() and not name.startswith("_") and name not in known:
                raise ConditionError(
                    f"unknown function '{name}'{_nearest(name, known)}",
                    *_position(code, rf"\b{name}\s*\("),
                )

    def holds(self, context: cel.Context) -> bool:
        """Whether the condition is true.

        Raises:
            ValueError: it could not be evaluated, or is neither true nor false.
        """
        try:
            value = self._program.execute(context)
        except KeyError as error:
            raise ValueError(f"there is no key {error}") from error
        except (IndexError, RuntimeError, TypeError, ValueError, ArithmeticError) as error:
            raise ValueError(_cause(str(error))) from error
        if not isinstance(value, bool):
            raise ValueError(f"the condition gave {type(value).__name__} instead of true or false")
        return value


class ContextBuilder:
    """Turns frames into CEL contexts, with only what a set of conditions reads.

    Converting Python values to CEL values is what costs (16 µs for a detection with its box,
    against 3 µs for the condition that reads five of them), so unused variables are left out.
    """

    def __init__(self, conditions: Iterable[Condition]) -> None:
        conditions = list(conditions)
        self._variables = frozenset[str]().union(*(c.variables for c in conditions))
        self._functions = {n: f for c in conditions for n, f in c.functions.items()}
        self._boxes = any("box" in condition.source for condition in conditions)
        self._areas = any("area" in condition.source for condition in conditions)

    def context(self, frame: Frame) -> cel.Context:
        """The variables of `frame`. One that cannot be converted is left out, so that only the
        conditions that read it fail."""
        context = cel.Context()
        for name, function in self._functions.items():
            context.add_function(name, function)
        for name in self._variables:
            try:
                context.add_variable(name, self._value(name, frame))
            except ValueError:
                # A producer's metadata may hold what CEL has no type for. The conditions that
                # read it say so in the verdict.
                continue
        return context

    def _value(self, name: str, frame: Frame) -> Any:
        findings = frame.findings
        match name:
            case "objects":
                return [self._object(detection, findings) for detection in findings.objects]
            case "texts":
                return [{"text": line.text, "score": line.score} for line in findings.texts]
            case "text":
                return "\n".join(line.text for line in findings.texts)
            case "words":
                return words(line.text for line in findings.texts)
            case "scores":
                return findings.scores
            case "fingerprint":
                prints = findings.fingerprint
                return {
                    "content_id": prints.content_id if prints else "",
                    "pdq": prints.pdq if prints else "",
                    "pdq_quality": prints.pdq_quality if prints else 0,
                }
            case "image":
                image = findings.image
                return {
                    "width": image.width if image else 0,
                    "height": image.height if image else 0,
                    "format": image.format if image else "",
                    "bytes": image.bytes if image else 0,
                }
            case "metadata":
                return frame.metadata
            case _:
                return frame.feed

    def _object(self, detection: Detection, findings: Findings) -> dict[str, Any]:
        value: dict[str, Any] = {"label": detection.label, "score": detection.score}
        x1, y1, x2, y2 = detection.box
        if self._boxes:
            value["box"] = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
        if self._areas:
            image = findings.image
            pixels = image.width * image.height if image else 0
            value["area"] = (x2 - x1) * (y2 - y1) / pixels if pixels else 0.0
        return value


def words(lines: Iterable[str]) -> str:
    """The words of `lines` in lower case, one space before, between and after them.

    `words(["FREE", "money!!"])` is `" free money "`: a phrase is then found whatever its case,
    punctuation and line breaks, and never inside a longer word, by a plain `contains`.
    """
    joined = _NOT_A_WORD.sub(" ", " ".join(lines).casefold()).strip()
    return f" {joined} " if joined else ""


def _bound_names(code: str) -> dict[str, set[str]]:
    """Each name that a macro binds, and the names of the lists that it goes over."""
    bound: dict[str, set[str]] = {}
    for match in _MACRO.finditer(code):
        bound.setdefault(match["bound"], set()).add(match["over"] or "")
    return bound


def _check_fields(code: str, bound: dict[str, set[str]]) -> None:
    """Refuse `o.lable` and `image.widht`: CEL would say so only when it meets them."""
    shapes = {name: FIELDS[name] for name in ("fingerprint", "image") if name not in bound}
    for name, lists in bound.items():
        if lists <= FIELDS.keys():
            shapes[name] = frozenset[str]().union(*(FIELDS[over] for over in lists))
    for name, fields in shapes.items():
        for match in re.finditer(rf"(?<![\w.]){name}\s*\.\s*(\w+)\b(?!\s*\()", code):
            if match[1] not in fields:
                raise ConditionError(
                    f"unknown field '{match[1]}' of '{name}'{_nearest(match[1], fields)}; "
                    f"it has {', '.join(sorted(fields))}",
                    *_line_and_column(code, match.start(1)),
                )


def _blank(match: re.Match[str]) -> str:
    """Spaces of the same extent, so that positions stay true."""
    return re.sub(r"[^\n]", " ", match[0])


def _parse_error(text: str) -> ConditionError:
    match = _PARSE_ERROR.search(text)
    if match is None:
        return ConditionError(text)
    message = re.sub(r"expecting \{.*", "expecting a value or an operator", match["message"])
    message = message.replace("'<EOF>'", "the end of the condition").removeprefix("Syntax error: ")
    return ConditionError(f"CEL syntax error: {message}", int(match["line"]), int(match["column"]))


def _position(code: str, pattern: str) -> tuple[int, int]:
    match = re.search(pattern, code)
    return _line_and_column(code, match.start() if match else 0)


def _line_and_column(text: str, index: int) -> tuple[int, int]:
    before = text[:index]
    return before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""


def _cause(message: str) -> str:
    """What CEL said, made fit for a verdict: its explanations run to a paragraph."""
    if match := _UNDEFINED.search(message):
        # Names were checked at load, so it is the value that has the wrong type, or none in CEL.
        return f"'{match[1]}' cannot be used with this image's values: one has an unsuitable type"
    message = " ".join(message.split())
    return message if len(message) <= 200 else message[:200].rsplit(" ", 1)[0] + " …"
