"""Erases images from every table that knows them, for good.

Which tables these are is asked of ClickHouse: every table with a column `image_id`, so that one
that is added later cannot be missed. Rows are deleted by mutations that have finished when this
returns: a lightweight delete would only hide them until their part is merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sinks.clickhouse.connection import connect, engine_message, is_transient, place
from sinks.clickhouse.settings import ClickHouseSettings
from sinks.sink import PermanentSinkError, SinkError, TransientSinkError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_ANSWER_SECONDS = 600.0
_AT_ONCE = 1000
_TABLES = """
SELECT table, groupArray(name) AS columns
FROM system.columns
WHERE database = {database:String} AND table IN (
    SELECT name FROM system.tables
    WHERE database = {database:String} AND engine LIKE '%MergeTree'
)
GROUP BY table
HAVING has(columns, 'image_id')
ORDER BY table
"""


@dataclass(frozen=True, slots=True)
class Selection:
    """The images that are meant: those with these ids, these contents, or of these feeds.

    Attributes:
        without: contents of images that are left out of `image_ids`, as they were counted before.
    """

    image_ids: Sequence[str] = ()
    content_ids: Sequence[str] = ()
    feeds: Sequence[str] = ()
    without: Sequence[str] = ()

    def conditions(self, columns: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
        """SQL conditions, with their parameters, for a table with these columns."""
        found: list[tuple[str, dict[str, Any]]] = []
        for column, values in (
            ("image_id", self.image_ids),
            ("content_id", self.content_ids),
            ("feed", self.feeds),
        ):
            if column not in columns:
                continue
            for begin in range(0, len(values), _AT_ONCE):
                condition = f"{column} IN {{names:Array(String)}}"
                parameters = {"names": list(values[begin : begin + _AT_ONCE])}
                if self.without and column == "image_id" and "content_id" in columns:
                    condition += " AND content_id NOT IN {without:Array(String)}"
                    parameters["without"] = list(self.without)
                found.append((condition, parameters))
        return found


class ClickHouseEraser:
    """Counts and erases rows. Synchronous; use it in a thread. Connects at the first call.

    Args:
        settings: of a user that may write.
    """

    def __init__(self, settings: ClickHouseSettings) -> None:
        self._settings = settings
        self._client: Client | None = None

    def close(self) -> None:
        """Release the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def image_ids_of(
        self, content_ids: Sequence[str], after: str = "", most: int = 1_000_000
    ) -> list[str]:
        """The images that have one of these contents, in the order of their ids.

        Args:
            after: only ids behind this one.
            most: at most so many.

        Raises:
            TransientSinkError, PermanentSinkError
        """
        return self._ids("images_raw", "content_id", content_ids, after, most)

    def decided_images_of(
        self, feeds: Sequence[str], after: str = "", most: int = 1_000_000
    ) -> list[str]:
        """The images of these feeds over which people decided, likewise.

        Raises:
            TransientSinkError, PermanentSinkError
        """
        return self._ids("reviews_raw", "feed", feeds, after, most)

    def _ids(
        self, table: str, column: str, names: Sequence[str], after: str, most: int
    ) -> list[str]:
        if not names:
            return []
        rows = self._query(
            f"SELECT DISTINCT image_id FROM {self._settings.database}.{table} "  # noqa: S608
            f"WHERE {column} IN {{names:Array(String)}} AND image_id > {{after:String}} "
            "ORDER BY image_id LIMIT {most:UInt32}",
            {"names": list(names), "after": after, "most": most},
        )
        return [row[0] for row in rows]

    def count(self, selection: Selection) -> dict[str, int]:
        """Rows that would be erased, by table. A row that is meant twice may count twice.

        Raises:
            TransientSinkError, PermanentSinkError
        """
        found = {}
        for table, columns in self._tables():
            found[table] = sum(
                int(
                    self._query(
                        f"SELECT count() FROM {self._settings.database}.{table} "  # noqa: S608
                        f"WHERE {condition}",
                        parameters,
                    )[0][0]
                )
                for condition, parameters in selection.conditions(columns)
            )
        return found

    def erase(self, selection: Selection) -> dict[str, int]:
        """Erase the rows and return how many there were, by table.

        Raises:
            TransientSinkError, PermanentSinkError: some tables may have been done; again is safe.
        """
        found = {}
        for table, columns in self._tables():
            erased = 0
            for condition, parameters in selection.conditions(columns):
                erased += self._erase(table, condition, parameters)
            found[table] = erased
        return found

    def expire(self, table: str, days: int, feed: str | None = None) -> int:
        """Delete rows that were written more than `days` ago (of one feed); how many there were.

        Raises:
            TransientSinkError, PermanentSinkError
        """
        condition = "ingested_at < now64(3) - INTERVAL {days:UInt32} DAY"
        parameters: dict[str, Any] = {"days": days}
        if feed is not None:
            condition += " AND feed = {feed:String}"
            parameters["feed"] = feed
        return self._erase(table, condition, parameters)

    def _erase(self, table: str, condition: str, parameters: dict[str, Any]) -> int:
        name = f"{self._settings.database}.{table}"
        [[rows]] = self._query(
            f"SELECT count() FROM {name} WHERE {condition}",  # noqa: S608
            parameters,
        )
        if rows:
            self._command(f"ALTER TABLE {name} DELETE WHERE {condition}", parameters)
        return int(rows)

    def _tables(self) -> list[tuple[str, list[str]]]:
        rows = self._query(_TABLES, {"database": self._settings.database})
        return [(table, list(columns)) for table, columns in rows]

    def _connected(self) -> Client:
        if self._client is None:
            self._client = connect(self._settings, answer_timeout=_ANSWER_SECONDS)
        return self._client

    def _query(self, sql: str, parameters: dict[str, Any]) -> Sequence[Sequence[Any]]:
        try:
            return self._connected().query(sql, parameters=parameters).result_rows
        except Exception as error:
            raise self._sink_error(error) from error

    def _command(self, sql: str, parameters: dict[str, Any]) -> None:
        try:
            # 2: on every replica.
            self._connected().command(sql, parameters=parameters, settings={"mutations_sync": 2})
        except Exception as error:
            raise self._sink_error(error) from error

    def _sink_error(self, error: Exception) -> SinkError:
        message = f"ClickHouse at {place(self._settings)}, erasing: {engine_message(error)}"
        return TransientSinkError(message) if is_transient(error) else PermanentSinkError(message)
