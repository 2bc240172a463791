"""Findings and failures as rows in ClickHouse, a server or the embedded engine, and read back."""

from sinks.clickhouse.reader import ClickHouseReader, QueryError
from sinks.clickhouse.settings import ClickHouseSettings
from sinks.clickhouse.sink import ClickHouseSink

__all__ = ["ClickHouseReader", "ClickHouseSettings", "ClickHouseSink", "QueryError"]
