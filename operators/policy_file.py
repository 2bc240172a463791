"""Policy files: TOML in, checked rules out, every complaint with file, rule, line and column."""

from __future__ import annotations

import datetime
import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from operators.findings import ACTIONS, Action
from operators.operator import OperatorError
from operators.policy_conditions import Condition, ConditionError
from operators.policy_explanations import Explanation
from operators.policy_places import Places, line_and_column, offset_in_string, scan
from operators.policy_taxonomy import DEFAULT_TAXONOMY, SEVERITIES, categories
from operators.policy_types import nearest

RULE_ERROR = "rule-error"
"""The name under which a verdict lists a rule that could not be evaluated; no rule may take it."""
MAX_BYTES = 1024 * 1024
"""A policy file is written by people; a topic may bring anything."""
MAX_RULES = 2_000

_FILE_KEYS = ("rules", "taxonomy")
_RULE_KEYS = (
    *("name", "when", "action", "explanation", "feeds", "enabled"),
    *("priority", "severity", "category", "expires", "shadow", "sample"),
)
_MOST_PRIORITY = 1_000_000
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
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
        priority: only the rules with the highest one among those that fired decide.
        severity: one of `SEVERITIES`, or empty.
        category: `group/sub` of the taxonomy, or empty.
        expires: the last day, in UTC, on which the rule is evaluated.
        shadow: evaluated and recorded, never acted on.
        sample: the share of images that it looks at, above 0 and at most 1.
        line, column: where the rule stands.
    """

    name: str
    condition: Condition
    action: Action
    explanation: Explanation = field(default_factory=lambda: Explanation(""))
    feeds: tuple[str, ...] = ()
    enabled: bool = True
    priority: int = 0
    severity: str = ""
    category: str = ""
    expires: datetime.date | None = None
    shadow: bool = False
    sample: float = 1.0
    line: int = 1
    column: int = 1

    def expired(self, today: datetime.date) -> bool:
        """Whether its last day is over on `today`."""
        return self.expires is not None and today > self.expires


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about a usable policy that can hardly be meant, and where it stands."""

    message: str
    rule: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class PolicyText:
    """What a policy's text says.

    Attributes:
        rules: in the order of the file.
        taxonomy: group to its categories.
        remarks: doubts about single rules.
    """

    rules: tuple[Rule, ...]
    taxonomy: Mapping[str, tuple[str, ...]]
    remarks: tuple[Remark, ...]


_DOTTED = re.compile(r"""(?<![\w"'.-])(?:(?:[\w-]++|"[^"\n]*"|'[^'\n]*')[ \t]*+\.[ \t]*+){32}""")
"""A key such as `a.b.c` without end: tomllib takes time that grows with the square of its length,
15 seconds for 40 KB, and who publishes a policy would stop every worker."""


def read_policy(text: str, file: str) -> PolicyText:
    """What the policy `text` says; `file` names it in errors.

    Raises:
        PolicyError
    """
    if len(text) > MAX_BYTES:
        raise PolicyError(f"{file}:1:1: larger than {MAX_BYTES} bytes; split the policy by feed")
    if (dotted := _DOTTED.search(text)) is not None:
        line = text.count("\n", 0, dotted.start()) + 1
        raise PolicyError(f"{file}:{line}:1: nested too deeply: a name of more than 32 parts")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _toml_error(error, text, file) from error
    except RecursionError as error:
        raise PolicyError(f"{file}:1:1: nested too deeply") from error
    reader = _Reader(text, file)
    for key, value in document.items():
        if key not in _FILE_KEYS or not isinstance(value, dict if key == "taxonomy" else list):
            raise reader.error(
                reader.place_of_file_key(key),
                f"unknown key '{key}'; a policy consists of [[rules]] tables and one [taxonomy]",
            )
    if "rules" not in document:
        # What is left of a file that was being saved when the disk was full allows every image.
        raise reader.error(
            0,
            "there are no [[rules]], so every image would be allowed; if that is meant, write "
            "rules = []",
        )
    taxonomy = reader.taxonomy(document.get("taxonomy"))
    tables = document.get("rules", [])
    if len(tables) > MAX_RULES:
        raise reader.error(0, f"{len(tables)} rules; at most {MAX_RULES} are taken")
    rules: dict[str, Rule] = {}
    for index, table in enumerate(tables):
        if not isinstance(table, dict):
            raise reader.error(0, "'rules' must be a list of [[rules]] tables")
        rule = reader.rule(index, table, categories(taxonomy))
        if rule.name in rules:
            raise reader.error(
                reader.places(index).values.get("name", reader.places(index).header),
                f"a second rule is called '{rule.name}'; verdicts name rules, so names are unique",
                rule.name,
            )
        rules[rule.name] = rule
    return PolicyText(tuple(rules.values()), taxonomy, tuple(reader.remarks))


class _Reader:
    """Reads one policy's tables, knowing where they stand in the text."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._top, self._rules = scan(text)
        self.remarks: list[Remark] = []

    def places(self, index: int) -> Places:
        """Where the rule stands; the start of the file for rules written as inline tables."""
        return self._rules[index] if index < len(self._rules) else Places(0)

    def place_of_file_key(self, key: str) -> int:
        return self._top.get(key, 0)

    def error(self, offset: int, message: str, rule: str = "") -> PolicyError:
        line, column = line_and_column(self._text, offset)
        within = f"rule '{rule}': " if rule else ""
        return PolicyError(f"{self._file}:{line}:{column}: {within}{message}")

    def taxonomy(self, table: Mapping[str, Any] | None) -> Mapping[str, tuple[str, ...]]:
        """The declared taxonomy, or the default one."""
        if table is None:
            return DEFAULT_TAXONOMY
        for group, subs in table.items():
            names = [group, *(subs if isinstance(subs, list) else [None])]
            if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
                raise self.error(
                    self.place_of_file_key("taxonomy"),
                    f"taxonomy: '{group}' must be a list of names in lower case, digits and "
                    'hyphens, such as violence = ["graphic", "threat"]',
                )
        return {group: tuple(subs) for group, subs in table.items()}

    def rule(self, index: int, table: Mapping[str, Any], known: tuple[str, ...]) -> Rule:
        """The rule in `table`, whose category must be one of `known`."""
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
        for key in ("name", "when", "action", "explanation", "severity", "category"):
            if not isinstance(table.get(key, ""), str):
                raise refuse(key, f"'{key}' must be a string")
        if not name or name == RULE_ERROR:
            raise refuse("name", f"a rule may not be called '{name}'; choose another name")
        if table["action"] not in ACTIONS:
            raise refuse("action", f"'{table['action']}' is not one of {', '.join(ACTIONS)}")
        for key in ("enabled", "shadow"):
            if not isinstance(table.get(key, False), bool):
                raise refuse(key, f"'{key}' must be true or false")
        feeds = table.get("feeds", [])
        if not isinstance(feeds, list) or not all(isinstance(feed, str) for feed in feeds):
            raise refuse("feeds", "'feeds' must be a list of names or patterns such as 'camera-*'")
        if "feeds" in table and not feeds:
            raise refuse("feeds", "'feeds' is empty, so the rule would never fire; leave it out")
        priority = table.get("priority", 0)
        if type(priority) is not int or abs(priority) > _MOST_PRIORITY:
            raise refuse("priority", f"'priority' must be a whole number within ±{_MOST_PRIORITY}")
        severity, category = table.get("severity", ""), table.get("category", "")
        if "severity" in table and severity not in SEVERITIES:
            raise refuse("severity", f"'{severity}' is not one of {', '.join(SEVERITIES)}")
        if "category" in table and category not in known:
            raise refuse(
                "category",
                f"unknown category '{category}'{nearest(category, known)}; "
                f"the taxonomy has {', '.join(known)}",
            )
        expires = table.get("expires")
        if expires is not None and type(expires) is not datetime.date:
            raise refuse("expires", "'expires' must be a date without quotes, as 2027-01-31")
        sample = table.get("sample", 1.0)
        if type(sample) not in (int, float) or not 0 < sample <= 1:
            raise refuse("sample", "'sample' must be a share above 0 and at most 1, such as 0.1")
        line, column = line_and_column(self._text, places.header)
        return Rule(
            name=table["name"],
            condition=self._condition(table["when"], places.values.get("when"), label),
            action=table["action"],
            explanation=self._explanation(
                table.get("explanation", ""), places.values.get("explanation"), label
            ),
            feeds=tuple(feeds),
            enabled=table.get("enabled", True),
            priority=priority,
            severity=severity,
            category=category,
            expires=expires,
            shadow=table.get("shadow", False),
            sample=float(sample),
            line=line,
            column=column,
        )

    def _condition(self, source: str, start: int | None, rule: str) -> Condition:
        try:
            condition = Condition(source)
        except ConditionError as error:
            raise self._inside("when", error, start, rule) from error
        for doubt in condition.doubts:
            offset = 0
            if start is not None:
                offset = offset_in_string(self._text, start, *condition.place(doubt))
            line, column = line_and_column(self._text, offset)
            self.remarks.append(Remark(doubt.message, rule, line, column))
        return condition

    def _explanation(self, template: str, start: int | None, rule: str) -> Explanation:
        try:
            return Explanation(template)
        except ConditionError as error:
            raise self._inside("explanation", error, start, rule) from error

    def _inside(self, key: str, error: ConditionError, start: int | None, rule: str) -> PolicyError:
        """`error`, which counts from the start of a string, with its place in the file."""
        offset = 0
        if start is not None:
            offset = offset_in_string(self._text, start, error.line, error.column)
        return self.error(offset, f"'{key}': {error.message}", rule)


def _toml_error(error: tomllib.TOMLDecodeError, text: str, file: str) -> PolicyError:
    if match := _TOML_POSITION.match(str(error)):
        place = f"{match['line']}:{match['column']}"
        return PolicyError(f"{file}:{place}: not valid TOML: {match['message']}")
    line, column = line_and_column(text, len(text))
    message = match["message"] if (match := _TOML_AT_END.match(str(error))) else str(error)
    return PolicyError(f"{file}:{line}:{column}: not valid TOML: {message} at the end of the file")
