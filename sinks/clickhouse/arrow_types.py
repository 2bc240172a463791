"""Gives an Arrow result the types that its ClickHouse columns have.

ClickHouse writes DateTime and IPv4 to Arrow as bare uint32 and Enum as its number (no setting
changes this in 26.9), so a time would show as 1789999200. The columns' own types are asked for only
when a result has columns of such a kind.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable

_WRAPPED = re.compile(r"(?:Nullable|LowCardinality)\((.*)\)")
_DATE_TIME = re.compile(r"DateTime(?:\('([^']+)'\))?")
_ENUM_VALUE = re.compile(r"'((?:[^'\\]|\\.)*)' = (-?\d+)")
_AMBIGUOUS = (pa.uint32(), pa.int8(), pa.int16())


def needs_types(table: pa.Table) -> bool:
    """Whether a column may stand for something else than the number it holds."""
    return any(field.type in _AMBIGUOUS for field in table.schema)


def with_types(table: pa.Table, types: Mapping[str, str]) -> pa.Table:
    """`table` with DateTime as `timestamp[s]` (UTC unless the column names a zone), Enum and IPv4
    as `string`.

    Args:
        types: ClickHouse's type of each column by name.
    """
    for index, field in enumerate(table.schema):
        convert = _conversion(types.get(field.name, ""))
        if convert is not None and field.type in _AMBIGUOUS:
            table = table.set_column(index, field.name, convert(table.column(index)))
    return table


def _conversion(type_name: str) -> Callable[[pa.ChunkedArray], pa.ChunkedArray] | None:
    while wrapped := _WRAPPED.fullmatch(type_name):
        type_name = wrapped[1]
    if found := _DATE_TIME.fullmatch(type_name):
        zone = found[1] or "UTC"
        return lambda column: column.cast(pa.int64()).cast(pa.timestamp("s", tz=zone))
    if type_name.startswith(("Enum8(", "Enum16(")):
        names = {
            int(number): re.sub(r"\\(.)", r"\1", name)
            for name, number in _ENUM_VALUE.findall(type_name)
        }
        return lambda column: _strings(column, lambda value: names.get(value, str(value)))
    if type_name == "IPv4":
        return lambda column: _strings(column, lambda value: str(ipaddress.IPv4Address(value)))
    return None


def _strings(column: pa.ChunkedArray, name: Callable[[int], str]) -> pa.ChunkedArray:
    values = [None if value is None else name(value) for value in column.to_pylist()]
    return pa.chunked_array([pa.array(values, pa.string())])
