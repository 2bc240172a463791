"""Reads the tables and views back: SQL of a person's own, and images by their ids.

Whatever user the settings name, a statement that goes through here can only read: it is judged by
`sql_guard` and runs with the engine's `readonly` and limits on time and rows.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from clickhouse_connect.driver import exceptions
from clickhouse_connect.driver.binding import external_bind_re

from sinks.clickhouse.arrow_types import needs_types, with_types
from sinks.clickhouse.connection import connect, engine_message, is_transient, place
from sinks.clickhouse.result_stream import ResultStream
from sinks.clickhouse.settings import ClickHouseSettings
from sinks.clickhouse.sql_guard import RefusedStatement, reading_statement
from sinks.clickhouse.sql_lexer import first_word, trailing_format

if TYPE_CHECKING:
    import pyarrow as pa
    from clickhouse_connect.driver.client import Client

_UNKNOWN_DATABASE = 81
_IDS_PER_QUERY = 1000
_GRACE_SECONDS = 10.0
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_END_WITH_CLIENT = "cancel_http_readonly_queries_on_client_close"
_DESCRIBABLE = frozenset({"SELECT", "WITH", "FROM"})


class QueryError(Exception):
    """A query was refused or failed; the message is the engine's, shortened.

    Attributes:
        code: ClickHouse's error number, if it answered.
        transient: the same query may succeed later.
        refused: the statement was not sent, since it does more than read.
    """

    def __init__(
        self,
        message: str,
        code: int | None = None,
        transient: bool = False,
        refused: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.transient = transient
        self.refused = refused


class ClickHouseReader:
    """Runs queries that only read. Connects at the first one; may be used from several threads.

    Args:
        settings: where ClickHouse is, and the limits of a query.
    """

    def __init__(self, settings: ClickHouseSettings) -> None:
        self._settings = settings
        self._client: Client | None = None
        self._table_functions: Collection[str] = ()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def query(self, sql: str, params: Mapping[str, Any] | None = None) -> pa.Table:
        """The result of one statement that reads.

        Args:
            sql: without FORMAT clause; `{name:Type}` stands for a parameter.
            params: values of the parameters.

        Returns:
            A table with typed columns: times as `timestamp[ms, UTC]`, text as `string`, lists and
            maps as such.

        Raises:
            QueryError
        """
        client = self._connected()
        statement = self._judged(sql, "`imagewire sql --format` chooses how it is shown")
        with self._turn():
            try:
                return self._run(client, statement, dict(params) if params else None)
            except Exception as error:
                raise self._query_error(error) from error

    def stream(
        self, sql: str, params: Mapping[str, Any] | None = None, max_rows: int | None = None
    ) -> ResultStream:
        """The result of one statement that reads, while it arrives. Close it, or use it in `with`.

        Args:
            sql: without FORMAT clause; `{name:Type}` stands for a parameter.
            params: values of the parameters. Each must stand in the statement so: the driver puts
                others into the text itself, after it was judged.
            max_rows: rows after which the result is cut; `query_max_rows` if not given.

        Raises:
            QueryError
        """
        client = self._connected()
        statement = self._judged(sql, "choose a format beside the statement")
        _require_placeholders(statement, params or {})
        parameters = dict(params) if params else None
        rows = min(max_rows or self._settings.query_max_rows, self._settings.query_max_rows)
        limits = self._limits(
            client, {"limit": rows + 1, "max_result_rows": rows + 1, _END_WITH_CLIENT: 1}
        )
        with self._turn():
            try:
                types = {}
                if first_word(statement.encode()) in _DESCRIBABLE:
                    types = self._types(client, statement, parameters)
                blocks = client.query_arrow_stream(
                    statement, parameters=parameters, settings=limits, use_strings=True
                )
                return ResultStream(blocks, types, rows, self._query_error)
            except Exception as error:
                raise self._query_error(error) from error

    def images_by_id(self, image_ids: Sequence[str]) -> list[dict[str, Any]]:
        """The rows of the view `images` with these ids, in the order of `image_ids`; ids that are
        not there are left out. An id that several feeds use gives a row for each.

        Raises:
            QueryError
        """
        found: dict[str, list[dict[str, Any]]] = {}
        unique = list(dict.fromkeys(image_ids))
        for begin in range(0, len(unique), _IDS_PER_QUERY):
            table = self.query(
                "SELECT * FROM images WHERE image_id IN {ids:Array(String)} ORDER BY feed",
                {"ids": unique[begin : begin + _IDS_PER_QUERY]},
            )
            for row in table.to_pylist(maps_as_pydicts="lossy"):
                found.setdefault(row["image_id"], []).append(row)
        return [row for image_id in unique for row in found.get(image_id, [])]

    def close(self) -> None:
        """Release the connection."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _run(self, client: Client, statement: str, parameters: dict[str, Any] | None) -> pa.Table:
        limits = self._limits(client)
        table = client.query_arrow(
            statement, parameters=parameters, settings=limits, use_strings=True
        )
        if first_word(statement.encode()) in _DESCRIBABLE and needs_types(table):
            table = with_types(table, self._types(client, statement, parameters))
        return table

    def _types(
        self, client: Client, statement: str, parameters: dict[str, Any] | None
    ) -> dict[str, str]:
        described = client.query(
            f"DESCRIBE TABLE ({statement}\n)",
            parameters=parameters,
            settings=self._limits(client),
        )
        return {row[0]: row[1] for row in described.result_rows}

    def _judged(self, sql: str, instead: str) -> str:
        """`sql` without comments, if it only reads and leaves the format to this reader."""
        try:
            statement = reading_statement(sql, self._table_functions)
        except RefusedStatement as refusal:
            raise QueryError(str(refusal), refused=True) from refusal
        if trailing_format(statement.encode()) is not None:
            raise QueryError(
                f"leave the FORMAT clause out: the result comes as an Arrow table, and {instead}",
                refused=True,
            )
        return statement

    def _turn(self) -> AbstractContextManager[object]:
        """A server answers several statements at once; an engine in this process takes turns."""
        return self._lock if self._settings.interface == "chdb" else nullcontext()

    def _connected(self) -> Client:
        with self._lock:
            return self._open()

    def _open(self) -> Client:
        if self._client is not None:
            return self._client
        client: Client | None = None
        try:
            client = connect(
                self._settings,
                self._settings.database,
                # The engine ends a query itself; the connection only has to outlast it.
                answer_timeout=self._settings.query_timeout + _GRACE_SECONDS,
            )
            names = client.query("SELECT name FROM system.table_functions").result_columns
        except Exception as error:
            if client is not None:
                client.close()
            raise self._query_error(error) from error
        self._table_functions = frozenset(names[0]) if names else frozenset()
        self._client = client
        return client

    def _limits(self, client: Client, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Settings of a query. A user whose profile is read-only already may not send them; the
        server's own limits hold then."""
        wanted: dict[str, Any] = {
            "max_execution_time": self._settings.query_timeout,
            "max_result_rows": self._settings.query_max_rows,
            "result_overflow_mode": "throw",
            **(more or {}),
            "readonly": 1,
        }
        known = client.server_settings
        # `readonly` comes last: chDB applies them in order and it locks the others.
        return {
            name: value
            for name, value in wanted.items()
            if name in known and known[name].readonly != 1
        }

    def _query_error(self, error: Exception) -> QueryError:
        code = getattr(error, "code", None)
        message = engine_message(error)
        if code == _UNKNOWN_DATABASE:
            message = (
                f"ClickHouse at {place(self._settings)} has no database "
                f"'{self._settings.database}' yet: a worker makes it at its first start"
            )
        elif isinstance(error, exceptions.OperationalError) and code is None:
            message = f"ClickHouse at {place(self._settings)} cannot be reached: {message}"
        return QueryError(message, code, is_transient(error))


def _require_placeholders(statement: str, params: Mapping[str, Any]) -> None:
    """By the driver's own pattern: with no match it would format the text, which was judged."""
    placed = {name for name, _ in external_bind_re.findall(statement)}
    for name in params:
        if not _PARAMETER.fullmatch(name) or name not in placed:
            raise QueryError(
                f"parameter '{name[:60]}' has no place in the statement: write {{name:Type}} "
                "there, such as {feed:String}",
                refused=True,
            )
