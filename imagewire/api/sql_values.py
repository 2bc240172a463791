"""Values of SQL results as text, for formats that have fewer types than ClickHouse.

JavaScript rounds integers beyond 2^53, JSON knows no NaN, and spreadsheets run text that begins
like a formula, which whoever sends pictures may have had in one: each is settled here once.
"""

from __future__ import annotations

import datetime as dt
import decimal
import math
from collections.abc import Callable
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

_EXACT = 2**53 - 1
_FORMULA = r"^([=+@\t\r＝＋－＠]|-[0-9.]*[^0-9.])"
"""Not a negative number, which decimals and wide integers are as text. East Asian spreadsheets take
the wide forms of the signs too."""
_MOMENT = "%Y-%m-%dT%H:%M:%SZ"


class UnreadableTextError(ValueError):
    """A column of lists or maps holds text that is not UTF-8; the message names it."""


def readable(block: pa.RecordBatch) -> pa.RecordBatch:
    """`block` with text that is UTF-8: other bytes become U+FFFD.

    ClickHouse's String holds any bytes, and Arrow takes them for text.

    Raises:
        UnreadableTextError: they stand inside lists, tuples or maps.
    """
    columns = list(block.columns)
    for index, field in enumerate(block.schema):
        try:
            columns[index].validate(full=True)
        except pa.ArrowInvalid as error:
            if not pa.types.is_string(field.type):
                raise UnreadableTextError(
                    f"column '{field.name}' holds text that is not UTF-8; ask for hex(…) or "
                    "toValidUTF8(…) of it"
                ) from error
            texts = [
                None if value is None else value.decode(errors="replace")
                for value in columns[index].cast(pa.binary()).to_pylist()
            ]
            columns[index] = pa.array(texts, pa.string())
    return pa.RecordBatch.from_arrays(columns, schema=block.schema)


def json_rows(block: pa.RecordBatch) -> list[tuple[Any, ...]]:
    """The rows of `block` as values that are the same after JSON, whoever reads it."""
    return list(zip(*(_json_column(column) for column in block.columns), strict=True))


def csv_columns(block: pa.RecordBatch, *, spreadsheet_safe: bool) -> list[pa.Array]:
    """The columns of `block` as CSV has them: times in RFC 3339, lists and maps as JSON.

    Args:
        spreadsheet_safe: put an apostrophe before text that begins like a formula.
    """
    return [_csv_column(column, spreadsheet_safe) for column in block.columns]


def csv_type(kind: pa.DataType) -> pa.DataType:
    """What a column of this type is in CSV."""
    return pa.string() if pa.types.is_timestamp(kind) or not _is_plain(kind) else kind


def _json_column(column: pa.Array) -> list[Any]:
    kind = column.type
    if pa.types.is_timestamp(kind):
        return list(_moments(column).to_pylist())
    values: list[Any] = column.to_pylist(maps_as_pydicts="lossy")
    if pa.types.is_integer(kind) and kind.bit_width == 64:
        return [_integer(value) for value in values] if _has_large(column) else values
    if pa.types.is_nested(kind) or not _is_plain(kind):
        return [_json_value(value) for value in values]
    return values


def _has_large(column: pa.Array) -> bool:
    extremes = pc.min_max(column).as_py()
    return any(abs(value) > _EXACT for value in extremes.values() if value is not None)


def _is_plain(kind: pa.DataType) -> bool:
    """Types of which JSON keeps every value; floats do, as NaN becomes null there."""
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_string(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_null(kind)
        or pa.types.is_date(kind)
    )


def _json_value(value: Any) -> Any:
    convert = _BY_TYPE.get(type(value))
    return value if convert is None else convert(value)


def _integer(value: int | None) -> int | str | None:
    return value if value is None or -_EXACT <= value <= _EXACT else str(value)


def _moment(value: dt.datetime) -> str:
    utc = value if value.tzinfo is None else value.astimezone(dt.UTC).replace(tzinfo=None)
    return utc.isoformat(timespec="milliseconds") + "Z"


_BY_TYPE: dict[type, Callable[[Any], Any]] = {
    int: _integer,
    float: lambda value: value if math.isfinite(value) else None,
    bytes: lambda value: value.decode(errors="replace"),
    decimal.Decimal: str,
    dt.datetime: _moment,
    dt.date: dt.date.isoformat,
    dt.timedelta: lambda value: value.total_seconds(),
    dt.time: dt.time.isoformat,
    list: lambda value: [_json_value(each) for each in value],
    tuple: lambda value: [_json_value(each) for each in value],
    dict: lambda value: {str(key): _json_value(each) for key, each in value.items()},
}


def _moments(column: pa.Array) -> pa.Array:
    # Without its zone, which has served: the values are UTC, and formatting would need a database
    # of zones that not every machine has.
    utc = column.cast(pa.timestamp(column.type.unit)).cast(pa.timestamp("ms"), safe=False)
    return pc.strftime(utc, _MOMENT)


def _csv_column(column: pa.Array, spreadsheet_safe: bool) -> pa.Array:
    kind = column.type
    if pa.types.is_timestamp(kind):
        return _moments(column)
    if not _is_plain(kind):
        values = (_json_value(each) for each in column.to_pylist(maps_as_pydicts="lossy"))
        texts = [
            each if each is None or isinstance(each, str) else msgspec.json.encode(each).decode()
            for each in values
        ]
        column = pa.array(texts, pa.string())
    if spreadsheet_safe and pa.types.is_string(column.type):
        return pc.replace_substring_regex(column, _FORMULA, "'\\1")
    return column
