"""Gives an Arrow result the types that its ClickHouse columns have.

ClickHouse writes DateTime and IPv4 to Arrow as bare uint32, Enum as its number, and IPv6,
FixedString and wide integers as bytes (no setting changes this in 26.9), so a time would show as
1789999200. The columns' own types are asked for only when a result has columns of such a kind.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable

_WRAPPED = re.compile(r"(?:Nullable|LowCardinality)\((.*)\)")
_DATE_TIME = re.compile(r"DateTime(?:\('([^']+)'\))?")
_ENUM_VALUE = re.compile(r"'((?:[^'\\]|\\.)*)' = (-?\d+)")
_WIDE_INTEGER = re.compile(r"(U?)Int(?:128|256)")
_AMBIGUOUS = (pa.uint32(), pa.int8(), pa.int16())


def needs_types(table: pa.Table) -> bool:
    """Whether a column may stand for something else than what it holds."""
    return any(_is_ambiguous(field.type) for field in table.schema)


def _is_ambiguous(kind: pa.DataType) -> bool:
    return (
        kind in _AMBIGUOUS
        or pa.types.is_fixed_size_binary(kind)
        or isinstance(kind, pa.BaseExtensionType)
    )


def with_types(table: pa.Table, types: Mapping[str, str]) -> pa.Table:
    """`table` with DateTime as `timestamp[s]` (UTC unless the column names a zone), and Enum, IPv4,
    IPv6, UUID, JSON, FixedString and integers of more than 64 bits as `string`.

    Args:
        types: ClickHouse's type of each column by name.
    """
    for index, field in enumerate(table.schema):
        convert = _conversion(types.get(field.name, ""))
        if convert is not None and _is_ambiguous(field.type):
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
    if type_name == "IPv6":
        return lambda column: _strings(column, lambda value: str(ipaddress.IPv6Address(value)))
    if type_name == "UUID" or type_name.startswith("JSON"):
        return lambda column: _strings(column, str)
    if type_name.startswith("FixedString("):
        return lambda column: _strings(
            column, lambda value: value.rstrip(b"\0").decode(errors="replace")
        )
    if found := _WIDE_INTEGER.fullmatch(type_name):
        signed = not found[1]
        return lambda column: _strings(
            column, lambda value: str(int.from_bytes(value, "little", signed=signed))
        )
    return None


def _strings(column: pa.ChunkedArray, name: Callable[[Any], str]) -> pa.ChunkedArray:
    values = [None if value is None else name(value) for value in column.to_pylist()]
    return pa.chunked_array([pa.array(values, pa.string())])
