"""Policy files: TOML in, checked rules out, every complaint with file, rule, line and column.

`tomllib` forgets where a value stood, so a small scanner walks over the already valid text and
notes where each rule and each of its values begins.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from operators.findings import ACTIONS, Action
from operators.operator import OperatorError
from operators.policy_conditions import Condition, ConditionError

RULE_ERROR = "rule-error"
"""The name under which a verdict lists a rule that could not be evaluated; no rule may take it."""

_FILE_KEYS = ("rules",)
_RULE_KEYS = ("name", "when", "action", "explanation", "feeds", "enabled")
_TOML_POSITION = re.compile(r"^(?P<message>.*) \(at line (?P<line>\d+), column (?P<column>\d+)\)$")
_TOML_AT_END = re.compile(r"^(?P<message>.*) \(at end of document\)$")


class PolicyError(OperatorError):
    """A policy that must not be used: the message gives file, line, column, rule and remedy."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a policy.

    Attributes:
        name: what verdicts call it.
        condition: fires the rule when it holds.
        action: what the rule asks for.
        explanation: for the people who read the verdict.
        feeds: shell patterns of the feeds that it looks at; empty means all.
        enabled: a rule that is switched off is still checked.
    """

    name: str
    condition: Condition
    action: Action
    explanation: str = ""
    feeds: tuple[str, ...] = ()
    enabled: bool = True


@dataclass(slots=True)
class _Places:
    """Where a table's header and values begin: offsets into the text."""

    header: int
    values: dict[str, int] = field(default_factory=dict)


def read_rules(text: str, file: str) -> tuple[Rule, ...]:
    """The rules of the policy `text`; `file` names it in errors.

    Raises:
        PolicyError
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _toml_error(error, text, file) from error
    reader = _Reader(text, file)
    for key, value in document.items():
        if key not in _FILE_KEYS or not isinstance(value, list):
            raise reader.error(
                reader.place_of_file_key(key),
                f"unknown key '{key}'; a policy consists of [[rules]] tables",
            )
    rules: dict[str, Rule] = {}
    for index, table in enumerate(document.get("rules", [])):
        if not isinstance(table, dict):
            raise reader.error(0, "'rules' must be a list of [[rules]] tables")
        rule = reader.rule(index, table)
        if rule.name in rules:
            raise reader.error(
                reader.places(index).values.get("name", reader.places(index).header),
                f"a second rule is called '{rule.name}'; verdicts name rules, so names are unique",
                rule.name,
            )
        rules[rule.name] = rule
    return tuple(rules.values())


class _Reader:
    """Reads one policy's tables, knowing where they stand in the text."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._top, self._rules = _scan(text)

    def places(self, index: int) -> _Places:
        """Where the rule stands; the start of the file for rules written as inline tables."""
        return self._rules[index] if index < len(self._rules) else _Places(0)

    def place_of_file_key(self, key: str) -> int:
        return self._top.get(key, 0)

    def error(self, offset: int, message: str, rule: str = "") -> PolicyError:
        line, column = _line_and_column(self._text, offset)
        within = f"rule '{rule}': " if rule else ""
        return PolicyError(f"{self._file}:{line}:{column}: {within}{message}")

    def rule(self, index: int, table: Mapping[str, Any]) -> Rule:
        places = self.places(index)
        name = table.get("name")
        label = name if isinstance(name, str) and name else f"number {index + 1}"

        def refuse(key: str, message: str) -> PolicyError:
            return self.error(places.values.get(key, places.header), message, label)

        for key in table:
            if key not in _RULE_KEYS:
                near = difflib.get_close_matches(key, _RULE_KEYS, n=1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                raise refuse(key, f"unknown key '{key}'{hint} (keys: {', '.join(_RULE_KEYS)})")
        for key in ("name", "when", "action"):
            if key not in table:
                raise refuse(key, f"the key '{key}' is missing")
        for key in ("name", "when", "action", "explanation"):
            if not isinstance(table.get(key, ""), str):
                raise refuse(key, f"'{key}' must be a string")
        if not name or name == RULE_ERROR:
            raise refuse("name", f"a rule may not be called '{name}'; choose another name")
        if table["action"] not in ACTIONS:
            raise refuse("action", f"'{table['action']}' is not one of {', '.join(ACTIONS)}")
        if not isinstance(table.get("enabled", True), bool):
            raise refuse("enabled", "'enabled' must be true or false")
        feeds = table.get("feeds", [])
        if not isinstance(feeds, list) or not all(isinstance(feed, str) for feed in feeds):
            raise refuse("feeds", "'feeds' must be a list of names or patterns such as 'camera-*'")
        if "feeds" in table and not feeds:
            raise refuse("feeds", "'feeds' is empty, so the rule would never fire; leave it out")
        return Rule(
            name=table["name"],
            condition=self._condition(table["when"], places.values.get("when"), label),
            action=table["action"],
            explanation=table.get("explanation", ""),
            feeds=tuple(feeds),
            enabled=table.get("enabled", True),
        )

    def _condition(self, source: str, start: int | None, rule: str) -> Condition:
        try:
            return Condition(source)
        except ConditionError as error:
            if start is None:
                raise self.error(0, f"'when': {error.message}", rule) from error
            offset = _offset_in_string(self._text, start, error.line, error.column)
            raise self.error(offset, f"'when': {error.message}", rule) from error


def _toml_error(error: tomllib.TOMLDecodeError, text: str, file: str) -> PolicyError:
    if match := _TOML_POSITION.match(str(error)):
        place = f"{match['line']}:{match['column']}"
        return PolicyError(f"{file}:{place}: not valid TOML: {match['message']}")
    line, column = _line_and_column(text, len(text))
    message = match["message"] if (match := _TOML_AT_END.match(str(error))) else str(error)
    return PolicyError(f"{file}:{line}:{column}: not valid TOML: {message} at the end of the file")


def _line_and_column(text: str, offset: int) -> tuple[int, int]:
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING = re.compile(
    r'"{3}(?:\\.|[^\\])*?"{3,5}|\'{3}.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'', re.DOTALL
)
_HEADER = re.compile(r"(\[\[?)([^\]\n]*)\]\]?")
_BARE = re.compile(r"[^\s=\"'#]+")


def _scan(text: str) -> tuple[dict[str, int], list[_Places]]:
    """Offsets of the values at the top, and of each `[[rules]]` table with its values.

    `text` is known to be valid TOML, so the scanner only has to skip over what it meets.
    """
    top: dict[str, int] = {}
    rules: list[_Places] = []
    values = top
    at = _end(_BLANK, text, 0)
    while at < len(text):
        if header := _HEADER.match(text, at):
            name = header[2].strip().strip("\"'")
            if header[1] == "[[" and name == "rules":
                rules.append(_Places(at))
                values = rules[-1].values
            else:
                top.setdefault(name.split(".")[0].strip(), at)
                values = {}
            at = _end(_BLANK, text, header.end())
            continue
        key_end = _end(_STRING, text, at) if text[at] in "\"'" else _end(_BARE, text, at)
        key = text[at:key_end].strip("\"'")
        start = _end(_BLANK, text, text.index("=", key_end) + 1)
        values.setdefault(key, start)
        at = _end(_BLANK, text, _value_end(text, start))
    return top, rules


def _value_end(text: str, at: int) -> int:
    """The end of the value that begins at `at`."""
    depth = 0
    while at < len(text):
        if text[at] in "\"'":
            at = _end(_STRING, text, at)
            continue
        if text[at] in "[{":
            depth += 1
        elif text[at] in "]}":
            depth -= 1
        elif depth and text[at] == "#":
            at = _end(_BLANK, text, at)
            continue
        elif not depth and text[at] in "\n#":
            return at
        at += 1
    return at


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match and match.end() > at else (at if pattern is _BLANK else at + 1)


def _offset_in_string(text: str, start: int, line: int, column: int) -> int:
    """Where line `line`, column `column` of the string value at `start` stands in `text`.

    Exact but for a line that an escaped line end joins to the next one.
    """
    quotes = 3 if text[start : start + 3] in ('"""', "'''") else 1
    escapes = text[start] == '"'
    at = start + quotes
    if quotes == 3:
        # TOML drops the line end that follows the opening quotes.
        at += len("\r\n") if text.startswith("\r\n", at) else text.startswith("\n", at)
        for _ in range(line - 1):
            at = text.find("\n", at) + 1
    for _ in range(column - 1):
        width = 1
        if escapes and text[at : at + 1] == "\\":
            width = {"u": 6, "U": 10}.get(text[at + 1 : at + 2], 2)
        at += width
    return min(at, len(text))
