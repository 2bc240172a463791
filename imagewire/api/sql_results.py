"""Results of SQL in the formats of the API, made block by block while ClickHouse gives them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

from imagewire.api.sql_values import csv_columns, csv_type, json_rows, readable
from sinks.clickhouse.result_stream import ResultStream

SqlFormat = Literal["json", "csv", "arrow", "parquet"]

MEDIA_TYPES: Mapping[SqlFormat, str] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8; header=present",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
_ACCEPTED: Mapping[str, SqlFormat] = {
    "application/json": "json",
    "text/csv": "csv",
    "application/vnd.apache.arrow.stream": "arrow",
    "application/vnd.apache.parquet": "parquet",
}
_ROWS_AT_ONCE = 2000
"""Rows of JSON made at once: a block of ClickHouse's would be some megabytes of objects."""


class BrokenOffError(Exception):
    """A result cannot be finished, and its format has no place to say so."""


def accepted_format(accept: str) -> SqlFormat | None:
    """The format that a header `Accept` asks for; JSON for any, `None` if it wants none of ours."""
    wanted = []
    for position, part in enumerate(accept.split(",")):
        name, *options = (piece.strip().lower() for piece in part.split(";"))
        weight = 1.0
        for option in options:
            if option.startswith("q="):
                try:
                    weight = float(option[2:])
                except ValueError:
                    weight = 0.0
        wanted.append((-weight, position, name))
    for weight, _, name in sorted(wanted):
        if weight == 0:
            continue
        if name in ("", "*/*", "application/*"):
            return "json"
        if name in _ACCEPTED:
            return _ACCEPTED[name]
    return None


class Encoder(Protocol):
    """Turns blocks into bytes of one format.

    Attributes:
        tells: whether the format says that rows were left out.
    """

    tells: bool

    def begin(self, result: ResultStream) -> bytes: ...
    def block(self, block: pa.RecordBatch) -> Iterator[bytes]: ...
    def end(self, result: ResultStream) -> bytes: ...
    def fail(self, message: str) -> bytes:
        """How a result ends that cannot be finished.

        Raises:
            BrokenOffError: the format has no way to say so.
        """
        ...


class JsonEncoder:
    """One object: columns, rows as lists of values, and what became of the query."""

    tells = True

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._between = b""

    def begin(self, result: ResultStream) -> bytes:
        names = zip(result.schema.names, result.types, strict=True)
        columns = [{"name": name, "type": kind} for name, kind in names]
        return b'{"columns":' + msgspec.json.encode(columns) + b',"rows":['

    def block(self, block: pa.RecordBatch) -> Iterator[bytes]:
        for begin in range(0, block.num_rows, _ROWS_AT_ONCE):
            rows = json_rows(readable(block.slice(begin, _ROWS_AT_ONCE)))
            if rows:
                yield self._between + msgspec.json.encode(rows, enc_hook=str)[1:-1]
                self._between = b","

    def end(self, result: ResultStream) -> bytes:
        return self._tail(result.rows, result.truncated, None)

    def fail(self, message: str) -> bytes:
        return self._tail(None, True, message)

    def _tail(self, rows: int | None, truncated: bool, error: str | None) -> bytes:
        fields = {
            "row_count": rows,
            "truncated": truncated,
            "elapsed_ms": round((time.perf_counter() - self._began) * 1000, 1),
            "error": error,
        }
        return b"]," + msgspec.json.encode(fields)[1:]


class CsvEncoder:
    """A line of names, then rows; text in quotation marks, nothing for null."""

    tells = False

    def __init__(self, spreadsheet_safe: bool) -> None:
        self._safe = spreadsheet_safe
        self._sink = _Pieces()
        self._schema = pa.schema([])
        self._writer: Any = None

    def begin(self, result: ResultStream) -> bytes:
        self._schema = pa.schema([(field.name, csv_type(field.type)) for field in result.schema])
        self._writer = pa.csv.CSVWriter(pa.PythonFile(self._sink, "w"), self._schema)
        return self._sink.take()

    def block(self, block: pa.RecordBatch) -> Iterator[bytes]:
        columns = csv_columns(readable(block), spreadsheet_safe=self._safe)
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        yield self._sink.take()

    def end(self, result: ResultStream) -> bytes:
        self._writer.close()
        return self._sink.take()

    def fail(self, message: str) -> bytes:
        raise BrokenOffError(message)


class ArrowEncoder:
    """Arrow's own types, as an IPC stream or as a Parquet file.

    Args:
        open_writer: makes the writer of a format, with the sink and the schema.
    """

    tells = False

    def __init__(self, open_writer: Callable[[Any, pa.Schema], Any]) -> None:
        self._open = open_writer
        self._sink = _Pieces()
        self._writer: Any = None

    def begin(self, result: ResultStream) -> bytes:
        self._writer = self._open(pa.PythonFile(self._sink, "w"), result.schema)
        return self._sink.take()

    def block(self, block: pa.RecordBatch) -> Iterator[bytes]:
        self._writer.write_batch(readable(block))
        yield self._sink.take()

    def end(self, result: ResultStream) -> bytes:
        self._writer.close()
        return self._sink.take()

    def fail(self, message: str) -> bytes:
        raise BrokenOffError(message)


def encoder(name: SqlFormat, *, spreadsheet_safe: bool = True) -> Encoder:
    """What makes results of the format `name`.

    Args:
        spreadsheet_safe: in CSV, put an apostrophe before text that begins like a formula.
    """
    if name == "json":
        return JsonEncoder()
    if name == "csv":
        return CsvEncoder(spreadsheet_safe)
    if name == "arrow":
        return ArrowEncoder(pa.ipc.new_stream)
    return ArrowEncoder(lambda sink, schema: pa.parquet.ParquetWriter(sink, schema))


class _Pieces:
    """A file that is taken away piece by piece while it is written."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._length = 0

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._length += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._length

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """What is left can still be taken."""

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def take(self) -> bytes:
        data, self._pieces = b"".join(self._pieces), []
        return data
