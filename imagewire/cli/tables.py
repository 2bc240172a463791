"""Arrow tables on a terminal."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pyarrow as pa
from rich.table import Table
from rich.text import Text

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
