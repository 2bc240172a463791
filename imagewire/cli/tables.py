"""Arrow tables on a terminal."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pyarrow as pa
from rich.table import Table
from rich.text import Text

from imagewire.cli.outcome import CommandError
from imagewire.cli.terminal import console, printable

MOST_ROWS = 200
"""Rows shown on a terminal; other formats give all."""


def arrow_to_rich(answer: pa.Table, title: str | None = None) -> Table:
    """A rich table with one row for each of the first `MOST_ROWS` rows."""
    table = Table(title=title, title_justify="left")
    for field in answer.schema:
        numeric = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        table.add_column(printable(field.name), justify="right" if numeric else "left")
    for row in answer.slice(0, MOST_ROWS).to_pylist():
        table.add_row(*(Text(cell_text(value)) for value in row.values()))
    return table


def print_arrow_table(answer: pa.Table) -> None:
    """Print an answer and how many rows it has."""
    console.print(arrow_to_rich(answer))
    shown = f", the first {MOST_ROWS} shown" if answer.num_rows > MOST_ROWS else ""
    plural = "row" if answer.num_rows == 1 else "rows"
    console.print(f"{answer.num_rows} {plural}{shown}", style="dim")


def with_readable_text(answer: pa.Table) -> pa.Table:
    """`answer` with every column of text valid UTF-8; bytes that are none become U+FFFD.

    ClickHouse's String holds any bytes, and Arrow takes them for text.

    Raises:
        CommandError: a column of lists or maps holds such bytes.
    """
    for index, field in enumerate(answer.schema):
        column = answer.column(index)
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            if not pa.types.is_string(field.type):
                raise CommandError(
                    f"column '{field.name}' holds text that is not UTF-8; ask for hex(…) or "
                    "toValidUTF8(…) of it"
                ) from error
            texts = [
                None if value is None else value.decode(errors="replace")
                for value in column.cast(pa.binary()).to_pylist()
            ]
            answer = answer.set_column(index, field.name, pa.array(texts, pa.string()))
    return answer


def cell_text(value: Any) -> str:
    """One value as text without control characters."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dt.datetime):
        return value.isoformat(sep=" ", timespec="milliseconds")
    if isinstance(value, bytes):
        return printable(value.decode("utf-8", errors="replace"))
    if isinstance(value, list | dict | tuple):
        return printable(json.dumps(value, ensure_ascii=False, default=str))
    return printable(str(value))
