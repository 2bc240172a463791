"""Reads the tables and views back: SQL of a person's own, and images by their ids.

Whatever user the settings name, a statement that goes through here can only read: it is judged by
`sql_guard` and runs with the engine's `readonly` and limits on time and rows.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from clickhouse_connect.driver import exceptions

from sinks.clickhouse.arrow_types import needs_types, with_types
from sinks.clickhouse.connection import connect, engine_message, is_transient, place
from sinks.clickhouse.settings import ClickHouseSettings
from sinks.clickhouse.sql_guard import RefusedStatement, reading_statement
from sinks.clickhouse.sql_lexer import first_word, trailing_format

if TYPE_CHECKING:
    import pyarrow as pa
    from clickhouse_connect.driver.client import Client

_UNKNOWN_DATABASE = 81
_IDS_PER_QUERY = 1000
_GRACE_SECONDS = 10.0
_DESCRIBABLE = frozenset({"SELECT", "WITH", "FROM"})


class QueryError(Exception):
    """A query was refused or failed; the message is the engine's, shortened.

    Attributes:
        code: ClickHouse's error number, if it answered.
        transient: the same query may succeed later.
    """

    def __init__(self, message: str, code: int | None = None, transient: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.transient = transient


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
        with self._lock:
            client = self._connected()
            try:
                statement = reading_statement(sql, self._table_functions)
            except RefusedStatement as refusal:
                raise QueryError(str(refusal)) from refusal
            if trailing_format(statement.encode()) is not None:
                raise QueryError(
                    "leave the FORMAT clause out: the result comes as an Arrow table, and "
                    "`imagewire sql --format` chooses how it is shown"
                )
            try:
                return self._run(client, statement, dict(params) if params else None)
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
            described = client.query(
                f"DESCRIBE TABLE ({statement}\n)", parameters=parameters, settings=limits
            )
            table = with_types(table, {row[0]: row[1] for row in described.result_rows})
        return table

    def _connected(self) -> Client:
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

    def _limits(self, client: Client) -> dict[str, Any]:
        """Settings of a query. A user whose profile is read-only already may not send them; the
        server's own limits hold then."""
        wanted = {
            "max_execution_time": self._settings.query_timeout,
            "max_result_rows": self._settings.query_max_rows,
            "result_overflow_mode": "throw",
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
