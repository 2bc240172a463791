"""How the command line speaks: people on standard error, data on standard output."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape

error_console = Console(stderr=True, highlight=False)
console = Console(highlight=False)

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), 127, *range(128, 160))}


def printable(text: str) -> str:
    """`text` without control characters, which could rewrite the terminal: they become `\\xNN`."""
    return text.translate(_CONTROL)


def print_error(message: str) -> None:
    """Say what went wrong."""
    error_console.print(f"[bold red]error[/] {escape(message)}", soft_wrap=True)


def print_note(message: str) -> None:
    """Say something that is no result."""
    error_console.print(escape(message), soft_wrap=True)


def print_json(value: Any, *, lines: bool = False) -> None:
    """Write `value` as JSON: indented for one result, on one line for each of many."""
    encoded = msgspec.json.encode(value)
    if not lines:
        encoded = msgspec.json.format(encoded, indent=2)
    sys.stdout.write(encoded.decode() + "\n")
    sys.stdout.flush()
