"""How the command line speaks: people on standard error, data on standard output.

Names, texts and messages come from feeds and servers. Whatever could steer a terminal (control
characters, marks that turn the direction of writing) is shown by its code instead.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import msgspec
from rich.console import Console, ConsoleDimensions
from rich.markup import escape

WIDTH_WITHOUT_TERMINAL = 160
"""Columns of tables that go to a file or a program."""


class _Console(Console):
    @property  # type: ignore[misc] # the setter is not used
    def size(self) -> ConsoleDimensions:
        if self.is_terminal or "COLUMNS" in os.environ:
            return super().size
        return ConsoleDimensions(WIDTH_WITHOUT_TERMINAL, 50)

    def on_broken_pipe(self) -> NoReturn:
        # rich would end the process with exit code 1; `imagewire.cli.run` knows better.
        raise BrokenPipeError


error_console = _Console(stderr=True, highlight=False)
console = _Console(highlight=False)

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
# Half characters (from names of files that are not UTF-8) cannot be written at all.
_UNSAFE = (
    0x061C, 0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A),
    *range(0xD800, 0xE000),
)  # fmt: skip
_HIDDEN = {code: f"\\u{code:04x}" for code in _UNSAFE}
_ESCAPES = {**_CONTROL, **_HIDDEN}
_ESCAPES_IN_LINES = {code: text for code, text in _ESCAPES.items() if chr(code) not in "\n\t"}
# JSON escapes what is below 32 itself; the others may be escaped too without changing the value.
_ESCAPES_IN_JSON = {code: f"\\u{code:04x}" for code in (*range(127, 160), *_UNSAFE)}


def printable(text: str) -> str:
    """`text` with `\\xNN` and `\\uNNNN` for characters that could steer the terminal."""
    return text.translate(_ESCAPES)


def printable_lines(text: str) -> str:
    """Like `printable`, but line ends and tabs stay."""
    return text.translate(_ESCAPES_IN_LINES)


def print_error(message: str) -> None:
    """Say what went wrong."""
    error_console.print(f"[bold red]error[/] {escape(printable_lines(message))}", soft_wrap=True)


def print_note(message: str) -> None:
    """Say something that is no result."""
    error_console.print(escape(printable_lines(message)), soft_wrap=True)


def print_raw(text: str) -> None:
    """Write `text` to standard output as it is."""
    sys.stdout.write(text)
    sys.stdout.flush()


def print_json(value: Any, *, lines: bool = False) -> None:
    """Write `value` as JSON: indented for one result, on one line for each of many."""
    encoded = msgspec.json.encode(value)
    if not lines:
        encoded = msgspec.json.format(encoded, indent=2)
    print_raw(encoded.decode().translate(_ESCAPES_IN_JSON) + "\n")
