"""Where a policy's rules and their values stand in the text.

`tomllib` forgets that, so a small scanner walks over the already valid text and notes where each
rule and each of its values begins.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass(slots=True)
class Places:
    """Where a table's header and values begin: offsets into the text."""

    header: int
    values: dict[str, int] = field(default_factory=dict)


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """Line and column of `offset`, both from 1."""
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING = re.compile(
    r'"{3}(?:\\.|[^\\])*?"{3,5}|\'{3}.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'', re.DOTALL
)
_HEADER = re.compile(r"(\[\[?)([^\]\n]*)\]\]?")
_BARE = re.compile(r"[^\s=\"'#]+")


def scan(text: str) -> tuple[dict[str, int], list[Places]]:
    """Offsets of the values at the top, and of each `[[rules]]` table with its values.

    `text` is known to be valid TOML, so the scanner only has to skip over what it meets.
    """
    top: dict[str, int] = {}
    rules: list[Places] = []
    values = top
    at = _end(_BLANK, text, 0)
    while at < len(text):
        if header := _HEADER.match(text, at):
            name = header[2].strip().strip("\"'")
            if header[1] == "[[" and name == "rules":
                rules.append(Places(at))
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


def offset_in_string(text: str, start: int, line: int, column: int) -> int:
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
