"""Tokens of ClickHouse SQL: just enough to tell code from strings, comments and insert data.

Statements arrive from other programs, and three decisions need more than a regular expression
over the whole text: whether a statement only reads, where the data of an INSERT begins, and where
one migration statement ends. The lexer works on bytes and lazily, so that the binary data behind an
INSERT is never looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

TokenKind = Literal["comment", "string", "quoted", "heredoc", "word", "number", "symbol"]

# The quantifiers are possessive: an unterminated literal must fail as a whole, never match a
# shorter one that ends at a doubled quote. `//` and `# ` begin comments in ClickHouse too.
_TOKEN = re.compile(
    rb"""
    (?P<space>[ \t\r\n\f\v]++)
  | (?P<comment>--[^\n]*+ | //[^\n]*+ | \#[ !][^\n]*+ | /\*.*?\*/)
  | (?P<string>'(?:[^'\\]|\\.|'')*+')
  | (?P<quoted>"(?:[^"\\]|\\.|"")*+" | `(?:[^`\\]|\\.|``)*+`)
  | (?P<heredoc>\$(?P<tag>\w*+)\$.*?\$(?P=tag)\$)
  | (?P<word>[A-Za-z_][A-Za-z0-9_]*+)
  | (?P<number>[0-9](?:[0-9A-Za-z_.])*+)
  | (?P<symbol>.)
    """,
    re.DOTALL | re.VERBOSE,
)
# After one of these, `format` was the name of a column.
_NO_FORMAT = (
    *("AND", "AS", "ASC", "BETWEEN", "DESC", "FROM", "GROUP", "HAVING", "ILIKE", "IN", "INTO"),
    *("IS", "LIKE", "LIMIT", "NOT", "OR", "ORDER", "PREWHERE", "SETTINGS", "UNION", "WHERE"),
)
_OPENING = {b"(", b"[", b"{"}
_CLOSING = {b")", b"]", b"}"}


class UnterminatedLiteral(ValueError):  # noqa: N818 - reads as what was found
    """A quote or a comment is opened and never closed."""


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a statement: `text` lies at `start:end` bytes, inside `depth` brackets."""

    kind: TokenKind
    text: bytes
    start: int
    end: int
    depth: int

    def is_word(self, *words: str) -> bool:
        """Whether this is one of `words`, unquoted, in any case."""
        return self.kind == "word" and self.text.decode("ascii").upper() in words


@dataclass(frozen=True, slots=True)
class InsertStatement:
    """An INSERT with its data apart: `head` ends before FORMAT or VALUES."""

    head: bytes
    input_format: str
    data: memoryview


def tokens(sql: bytes) -> Iterator[Token]:
    """The tokens of `sql`, comments included, white space left out.

    Raises:
        UnterminatedLiteral: a quote or a comment is never closed.
    """
    depth = 0
    position = 0
    while position < len(sql):
        match = _TOKEN.match(sql, position)
        if match is None:  # pragma: no cover - the last alternative matches any byte
            raise UnterminatedLiteral(f"cannot read the statement at byte {position}")
        position = match.end()
        kind = match.lastgroup
        if kind == "tag":
            kind = "heredoc"
        if kind == "space" or kind is None:
            continue
        text = match.group()
        if kind == "symbol":
            if text in (b"'", b'"', b"`"):
                raise UnterminatedLiteral(
                    f"the quote {text.decode()} at byte {match.start()} is never closed"
                )
            if text == b"/" and sql[position : position + 1] == b"*":
                raise UnterminatedLiteral(
                    f"the comment that begins at byte {match.start()} is never closed"
                )
            if text in _CLOSING:
                depth -= 1
        yield Token(kind, text, match.start(), match.end(), depth)  # type: ignore[arg-type]
        if text in _OPENING:
            depth += 1


def first_word(sql: bytes) -> str:
    """The first keyword of `sql` in capitals, brackets before it skipped; empty if none."""
    for token in tokens(sql):
        if token.kind == "comment" or token.text == b"(":
            continue
        return token.text.decode("ascii").upper() if token.kind == "word" else ""
    return ""


def split_insert(sql: bytes) -> InsertStatement | None:
    """Take an INSERT that carries its data in the text apart; `None` if there is no data to part
    (`INSERT … SELECT`, `FROM INFILE`) or the statement is no INSERT.

    chDB ends data inside SQL text at a blank line and runs what follows as SQL, so data must reach
    it by another way.
    """
    if first_word(sql) != "INSERT":
        return None
    stream = iter(tokens(sql))
    for token in stream:
        if token.depth or token.kind != "word":
            continue
        if token.is_word("SELECT", "WITH", "INFILE", "WATCH"):
            return None
        if token.is_word("VALUES"):
            return InsertStatement(sql[: token.start], "Values", memoryview(sql)[token.end :])
        if token.is_word("FORMAT"):
            name = next(stream, None)
            if name is None or name.kind != "word":
                return None
            gap = re.compile(rb"[ \t]*(?:\r?\n)?").match(sql, name.end)
            begin = gap.end() if gap else name.end
            return InsertStatement(
                sql[: token.start], name.text.decode("ascii"), memoryview(sql)[begin:]
            )
    return None


def trailing_format(sql: bytes) -> tuple[str, int] | None:
    """The name in a closing `FORMAT name` and where the clause starts, or `None`."""
    found: tuple[str, int] | None = None
    before: Token | None = None
    for token in tokens(sql):
        if token.kind == "comment":
            continue
        named = token.kind == "word" and not token.depth and not token.is_word(*_NO_FORMAT)
        if before is not None and before.is_word("FORMAT") and named:
            found = (token.text.decode("ascii"), before.start)
        elif not token.depth and token.is_word("FROM", "WHERE", "SELECT"):
            found = None  # `format` was a column or an alias
        before = token
    return found


def split_statements(sql: str) -> list[str]:
    """The statements of a script, parted by semicolons, without their comments."""
    statements: list[bytes] = []
    current: list[bytes] = []
    raw = sql.encode()
    end_of_last = 0
    for token in tokens(raw):
        current.append(raw[end_of_last : token.start])
        end_of_last = token.end
        if token.kind == "comment":
            current.append(b" ")
        elif token.text == b";" and token.kind == "symbol" and not token.depth:
            statements.append(b"".join(current).strip())
            current = []
        else:
            current.append(token.text)
    statements.append(b"".join(current).strip())
    return [statement.decode() for statement in statements if statement]
