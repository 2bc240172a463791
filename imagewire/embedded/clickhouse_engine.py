"""ClickHouse's engine (chDB) over one directory, as the HTTP front calls it.

chDB allows one process per directory and reports a second one only as a failed start, so the
directory's lock is looked at first. Every statement gets a handle of its own (0.7 ms): what one
request SETs or USEs can never leak into the next.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

import chdb

from sinks.clickhouse.directory_lock import holding_process
from sinks.clickhouse.sql_lexer import (
    UnterminatedLiteral,
    first_word,
    split_insert,
    tokens,
    trailing_format,
)

BAD_ARGUMENTS = 36
SYNTAX_ERROR = 62
UNKNOWN_FORMAT = 73
UNKNOWN_SETTING = 115
READONLY = 164
UNKNOWN_EXCEPTION = 1002

_CODE = re.compile(r"Code: (\d+)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESULT_KEYWORDS = frozenset(
    {"SELECT", "WITH", "FROM", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS", "CHECK", "KILL"}
)
# chDB's Python layer turns these into Python objects instead of bytes.
_PYTHON_FORMATS = frozenset({"dataframe", "arrowtable"})


class EngineError(Exception):
    """ClickHouse refused a statement. `code` is ClickHouse's numeric error code."""

    def __init__(self, code: int, message: str) -> None:
        if not message.startswith("Code:"):
            message = f"Code: {code}. DB::Exception: {message}"
        super().__init__(message)
        self.code = code


class EngineDirectoryInUse(Exception):  # noqa: N818 - reads as what happened
    """Another process has the directory open; the message names it."""


@dataclass(frozen=True, slots=True)
class Request:
    """A statement and its surroundings.

    Attributes:
        sql: the statement; data of an INSERT may follow inside it.
        settings: applied in this order, before `readonly`.
        parameters: values for `{name:Type}` in the statement, in ClickHouse's text form.
        readonly: ClickHouse's `readonly` setting, applied last so that the others could be.
    """

    sql: bytes
    database: str | None = None
    settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    parameters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    default_format: str = "TabSeparated"
    readonly: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """`data` in `output_format` (`None` for a statement without a result) and ClickHouse's
    counters of rows and bytes, as strings."""

    data: bytes
    output_format: str | None
    summary: Mapping[str, str]


class Engine:
    """The engine of this process. A process can open one directory only.

    Args:
        path: the directory that holds the data; made if it is not there.
        max_memory: bytes that the engine may use for queries and merges together.

    Raises:
        EngineDirectoryInUse: another process has it open.
        EngineError: the engine does not start on this directory.
    """

    def __init__(self, path: Path, max_memory: int) -> None:
        path.mkdir(parents=True, exist_ok=True)
        holder = holding_process(path)
        if holder is not None:
            raise EngineDirectoryInUse(
                f"the ClickHouse data in {path} is in use by process {holder}; stop that process "
                "or choose another directory"
            )
        options = {
            "max_server_memory_usage": max_memory,
            # The caches are part of the budget; their defaults are sized for servers.
            "mark_cache_size": min(max_memory // 10, 128 << 20),
            "uncompressed_cache_size": 0,
        }
        self.max_memory = max_memory
        self._address = f"{path.resolve()}?{urlencode(options)}"
        try:
            self._keeper = chdb.connect(self._address)
        except Exception as error:
            raise EngineError(
                _code(error), f"ClickHouse's engine does not start in {path}: {error}"
            ) from error
        self.timezone = self._text("SELECT timezone()")
        self.version = self._text("SELECT version()")
        self.table_functions = frozenset(
            self._text("SELECT name FROM system.table_functions").split()
        )

    def execute(self, request: Request) -> Answer:
        """Run one statement; blocks. Safe to call from several threads.

        Raises:
            EngineError
        """
        try:
            with contextlib.closing(chdb.connect(self._address)) as handle:
                _prepare(handle, request)
                return _run(handle, request)
        except UnterminatedLiteral as error:
            raise EngineError(SYNTAX_ERROR, f"{error}. (SYNTAX_ERROR)") from error
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(_code(error), str(error)) from error

    def interrupt(self) -> None:
        """Ask every running statement to end; used when the process is told to stop."""
        with (
            contextlib.suppress(Exception),  # it is ending anyway; the caller has a deadline
            contextlib.closing(chdb.connect(self._address)) as handle,
        ):
            handle.query("KILL QUERY WHERE 1 ASYNC", "Null")

    def close(self) -> None:
        """Close the directory. No statement may be running."""
        self._keeper.close()

    def _text(self, sql: str) -> str:
        return str(self._keeper.query(sql, "TSVRaw")).strip()


def _prepare(handle: Any, request: Request) -> None:
    if request.database:
        name = request.database.replace("\\", "\\\\").replace("`", "\\`")
        handle.query(f"USE `{name}`")
    for name, value in request.settings.items():
        if not _NAME.fullmatch(name):
            raise EngineError(UNKNOWN_SETTING, f"bad setting name {name!r}. (UNKNOWN_SETTING)")
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        handle.query(f"SET {name} = '{quoted}'")
    if request.readonly:
        handle.query(f"SET readonly = {int(request.readonly)}")


def _run(handle: Any, request: Request) -> Answer:
    sql = request.sql
    if first_word(sql) == "INSERT":
        insert = split_insert(sql)
        if insert is not None:
            return _insert(handle, insert.head, insert.input_format, insert.data)
        handle.query(sql.decode(), "Null", params=dict(request.parameters))
        return Answer(b"", None, {})
    has_result = first_word(sql) in _RESULT_KEYWORDS
    clause = trailing_format(sql) if has_result else None
    output_format = clause[0] if clause else request.default_format
    if not _NAME.fullmatch(output_format) or output_format.lower() in _PYTHON_FORMATS:
        raise EngineError(UNKNOWN_FORMAT, f"Unknown format {output_format}. (UNKNOWN_FORMAT)")
    result = handle.query(sql.decode(), output_format, params=dict(request.parameters))
    data = result.bytes() or b""
    if has_result and not data and output_format == "Native":
        body = sql[: clause[1]] if clause else sql
        data = _empty_native_block(handle, body, request.parameters)
    summary = {
        "read_rows": str(result.rows_read()),
        "read_bytes": str(result.bytes_read()),
        "result_rows": str(result.rows_read()),
        "elapsed_ns": str(int(result.elapsed() * 1e9)),
    }
    return Answer(data, output_format if has_result else None, summary)


def _insert(handle: Any, head: bytes, input_format: str, data: memoryview) -> Answer:
    """Data goes beside the statement, as a file: inside its text chDB cuts it at a blank line and
    runs the rest as SQL, and its streaming insert (chdb-core 26.9) reports rows as written that a
    full disk refused."""
    if not _NAME.fullmatch(input_format):
        raise EngineError(UNKNOWN_FORMAT, f"Unknown format {input_format}. (UNKNOWN_FORMAT)")
    before, after = _around_settings(head)
    with _file_of(data) as path:
        result = handle.query(
            f"{before} FROM INFILE '{path}' COMPRESSION 'none' {after} FORMAT {input_format}",
            "Null",
        )
    return Answer(
        b"",
        None,
        {
            # The engine counts what it read, and it wrote what it read.
            "written_rows": str(result.rows_read()),
            "written_bytes": str(result.bytes_read()),
            "elapsed_ns": str(int(result.elapsed() * 1e9)),
        },
    )


def _around_settings(head: bytes) -> tuple[str, str]:
    """An INSERT's text parted where a file is to be named: before its SETTINGS, if it has any."""
    for token in tokens(head):
        if token.kind == "word" and not token.depth and token.is_word("SETTINGS"):
            return head[: token.start].decode(), head[token.start :].decode()
    return head.decode(), ""


@contextlib.contextmanager
def _file_of(data: memoryview) -> Iterator[str]:
    """The path of a file with `data`: in memory where that can be, as the disk may be full."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("imagewire-insert"), "wb", buffering=0) as file:
            _write_all(file, data)
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile(prefix="imagewire-insert-", buffering=0) as named:
            _write_all(named, data)
            yield named.name.replace("\\", "\\\\").replace("'", "\\'")


def _write_all(file: Any, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


def _empty_native_block(handle: Any, sql: bytes, parameters: Mapping[str, str]) -> bytes:
    """A Native block of no rows with the columns of `sql`. chDB writes nothing at all for an empty
    result, from which a client could not tell the columns; a server writes this block."""
    if first_word(sql) not in ("SELECT", "WITH", "FROM"):
        return b""
    described = handle.query(
        b"DESCRIBE TABLE (" + sql.rstrip(b"; \t\r\n") + b"\n)",
        "JSONEachRow",
        params=dict(parameters),
    )
    columns = [json.loads(line) for line in (described.bytes() or b"").splitlines()]
    block = _varint(len(columns)) + b"\0"
    for column in columns:
        for text in (column["name"].encode(), column["type"].encode()):
            block += _varint(len(text)) + text
    return block


def _varint(number: int) -> bytes:
    encoded = b""
    while number > 127:
        encoded += bytes([number & 127 | 128])
        number >>= 7
    return encoded + bytes([number])


def _code(error: Exception) -> int:
    found = _CODE.search(str(error))
    return int(found[1]) if found else UNKNOWN_EXCEPTION
