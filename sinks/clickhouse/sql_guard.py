"""Lets statements of analysts through that only read tables, and refuses the rest.

`readonly=1` stops writes, but not everything that reaches beyond the tables: measured on chDB 4.4,
`INTO OUTFILE` still writes files, the scalar `file('…')` still reads them (even as a bare name,
`arrayMap(file, …)`, or written `fil\\x65` in backticks), `DESCRIBE url('…')` still opens
connections and `KILL QUERY` still kills. The guard reads tokens, not patterns, and hands back the
statement without its comments, so that what it judged is what the engine gets.
"""

from __future__ import annotations

from collections.abc import Collection

from sinks.clickhouse.sql_lexer import Token, UnterminatedLiteral, tokens

READING_KEYWORDS = frozenset(
    {"SELECT", "WITH", "FROM", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS"}
)
"""What a statement of an analyst may begin with."""

HARMLESS_TABLE_FUNCTIONS = frozenset(
    {
        "format",
        "generaterandom",
        "generateseries",
        "generate_series",
        "merge",
        "null",
        "numbers",
        "numbers_mt",
        "primes",
        "values",
        "view",
        "zeros",
        "zeros_mt",
    }
)
"""Table functions that compute or read local tables only. Every other one that the engine knows is
refused, so that a new one is refused until somebody looked at it."""

_REFUSED_NAMES = frozenset({"file", "outfile", "infile"})
"""Refused wherever they stand as a name: `file` can be passed to `arrayMap` without a bracket."""
_REACHING_SCALARS = ("ai", "catboostevaluate", "filesystem")


class RefusedStatement(Exception):  # noqa: N818 - reads as what happened
    """An analyst's statement does more than read tables; the message says what and why."""


def reading_statement(sql: str, table_functions: Collection[str]) -> str:
    """`sql` without comments and closing semicolon, if it is one statement that reads tables only.

    Args:
        table_functions: the names in the engine's `system.table_functions`.

    Raises:
        RefusedStatement: it is empty, holds several statements, does not begin with one of
            `READING_KEYWORDS`, or names a function that reaches files, the network or programs.
    """
    reaching = {name.lower() for name in table_functions} - HARMLESS_TABLE_FUNCTIONS
    raw = sql.encode()
    kept: list[Token] = []
    pieces: list[bytes] = []
    end_of_last = 0
    try:
        for token in tokens(raw):
            pieces.append(raw[end_of_last : token.start])
            end_of_last = token.end
            if token.kind == "comment":
                pieces.append(b" ")
                continue
            if kept and kept[-1].text == b";":
                raise RefusedStatement("send one statement at a time: text follows the semicolon")
            _check_spelling(token, kept[-1] if kept else None)
            kept.append(token)
            if token.text != b";":
                pieces.append(token.text)
    except UnterminatedLiteral as error:
        raise RefusedStatement(f"the statement cannot be read: {error}") from error
    kept = [token for token in kept if token.text != b";"]
    if not kept:
        raise RefusedStatement("the statement is empty")
    opening = next((token for token in kept if token.text != b"("), kept[0])
    if not opening.is_word(*READING_KEYWORDS):
        raise RefusedStatement(
            f"a statement may not begin with '{_shown(opening)}' here: only "
            f"{', '.join(sorted(READING_KEYWORDS))} are open to readers"
        )
    for position, token in enumerate(kept):
        following = kept[position + 1] if position + 1 < len(kept) else None
        _check_name(token, following, reaching)
    return b"".join(pieces).decode().strip()


def _check_spelling(token: Token, before: Token | None) -> None:
    """Refuse spellings that the engine may read otherwise than this lexer does."""
    if token.kind == "heredoc" or token.text == b"$":
        raise RefusedStatement("'$' and $$…$$ strings are refused here: use plain quotes")
    if token.kind == "quoted" and b"\\" in token.text:
        raise RefusedStatement(f"a quoted name may not hold a backslash: {_shown(token)}")
    if token.kind == "string" and b"\\" in token.text and before is not None:
        touching = before.end == token.start
        if touching and before.is_word("X", "B"):
            raise RefusedStatement("a hexadecimal or binary literal may not hold a backslash")
    if token.kind == "symbol" and not (0x21 <= token.text[0] <= 0x7E and token.text != b"#"):
        raise RefusedStatement(
            f"an unusual character (byte 0x{token.text[0]:02x}) stands outside quotes: "
            "typographic quotes and non-breaking spaces come from word processors; retype it"
        )


def _check_name(token: Token, following: Token | None, reaching: set[str]) -> None:
    if token.kind == "word":
        name = token.text.decode("ascii").lower()
    elif token.kind == "quoted":
        name = token.text[1:-1].decode(errors="replace").lower()
    else:
        return
    called = following is not None and following.text == b"("
    if (
        name in _REFUSED_NAMES
        or (called and name in reaching)
        or (called and name.startswith(_REACHING_SCALARS))
    ):
        raise RefusedStatement(
            f"'{_shown(token)}' is refused: it reaches files, the network or other programs, and "
            "this account only reads tables"
        )


def _shown(token: Token) -> str:
    return token.text[:60].decode(errors="replace")
