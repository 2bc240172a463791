"""What `imagewire sql` gets from ClickHouse, and what it cannot do there."""

from __future__ import annotations

import secrets
import socket
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from operators.findings import Detection, Findings
from operators.frame import Frame, Origin
from sinks.clickhouse.reader import ClickHouseReader, QueryError
from sinks.clickhouse.settings import ClickHouseSettings
from sinks.clickhouse.sink import ClickHouseSink

T0 = 1_790_000_000_000


@pytest.fixture(params=["writer", "analyst"])
async def reader(request: pytest.FixtureRequest, clickhouse_front: Any) -> Any:
    """A reader for each user over a database of three images."""
    address = {"host": clickhouse_front.host, "port": clickhouse_front.port}
    database = f"reader_{secrets.token_hex(5)}"
    writer = ClickHouseSettings(
        **address,
        username="writer",
        password=clickhouse_front.writer_password,
        database=database,
        query_max_rows=1000,
    )
    sink = ClickHouseSink(writer)
    await sink.open()
    findings = Findings(objects=[Detection("face", 0.5, (0, 0, 1, 1))], scores={"nsfw": 0.25})
    await sink.write(
        [
            Frame(f"id-{n}", "door", T0, Origin("images", 0, n, T0), findings=findings)
            for n in range(3)
        ]
    )
    await sink.close()
    password = getattr(clickhouse_front, f"{request.param}_password")
    settings = writer.model_dump(exclude={"username", "password"})
    with ClickHouseReader(
        ClickHouseSettings(**settings, username=request.param, password=password)
    ) as reader:
        yield reader


def test_columns_have_their_types(reader: ClickHouseReader) -> None:
    schema = reader.query(
        "SELECT image_id, event_time, toStartOfHour(event_time) AS hour, toDate(event_time) AS day,"
        " labels, scores, verdict, bytes, latency_ms FROM images"
    ).schema
    assert [str(field.type) for field in schema] == [
        "string", "timestamp[ms, tz=UTC]", "timestamp[s, tz=UTC]", "date32[day]",
        "list<item: string not null>", "map<string, float>", "string", "uint64", "double",
    ]  # fmt: skip


def test_hours_enums_and_addresses_are_readable(reader: ClickHouseReader) -> None:
    table = reader.query(
        "SELECT hour, verdict, toIPv4('10.0.0.1') AS address, toUInt32(7) AS number, "
        "toDateTimeOrNull('x') AS missing "
        "FROM counts_hourly, (SELECT verdict FROM images_raw LIMIT 1) AS raw"
    )
    assert table.to_pylist() == [
        {
            "hour": datetime(2026, 9, 21, 14, tzinfo=UTC),
            "verdict": "none",
            "address": "10.0.0.1",
            "number": 7,
            "missing": None,
        }
    ]


def test_parameters_are_values_and_never_sql(reader: ClickHouseReader) -> None:
    sql = "SELECT count() AS n FROM images WHERE image_id = {id:String} OR kafka_offset = {o:Int64}"
    assert reader.query(sql, {"id": "id-1", "o": 2}).to_pylist() == [{"n": 2}]
    assert reader.query(sql, {"id": "' OR 1 OR '", "o": 9}).to_pylist() == [{"n": 0}]


def test_an_empty_result_keeps_its_columns(reader: ClickHouseReader) -> None:
    table = reader.query("SELECT image_id, bytes FROM images WHERE 0;")
    assert table.num_rows == 0
    assert table.schema.names == ["image_id", "bytes"]
    assert table.schema.field("bytes").type == pa.uint64()


@pytest.mark.parametrize(
    "sql", ["SHOW TABLES", "DESCRIBE TABLE images", "EXPLAIN SELECT 1", "EXISTS TABLE images"]
)
def test_statements_about_tables_work(reader: ClickHouseReader, sql: str) -> None:
    assert reader.query(sql).num_rows > 0


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO images_raw (image_id) VALUES ('x')",
        "ALTER TABLE images_raw DELETE WHERE 1",
        "DROP VIEW images",
        "SET readonly = 0",
        "SELECT 1; DROP VIEW images",
        "SELECT file('/etc/hostname')",
        "SELECT 1 INTO OUTFILE '/dev/null'",
        "SELECT * FROM url('http://127.0.0.1:1/', CSV, 'a String')",
        "SELECT * FROM `/etc/hostname`",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 SETTINGS max_result_rows = 0",
    ],
)
def test_nothing_but_reading_is_possible(reader: ClickHouseReader, sql: str) -> None:
    with pytest.raises(QueryError):
        reader.query(sql)
    assert reader.query("SELECT count() AS n FROM images").to_pylist() == [{"n": 3}]


def test_an_error_is_the_engine_s_own_in_one_line(reader: ClickHouseReader) -> None:
    with pytest.raises(QueryError, match=r"Unknown expression.*nonsense") as caught:
        reader.query("SELECT nonsense FROM images")
    assert caught.value.code == 47
    assert not caught.value.transient
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 600


def test_a_format_clause_is_refused_with_advice(reader: ClickHouseReader) -> None:
    with pytest.raises(QueryError, match="leave the FORMAT clause out"):
        reader.query("SELECT 1 FORMAT JSON")


def test_images_are_found_by_their_ids_in_the_order_asked(reader: ClickHouseReader) -> None:
    found = reader.images_by_id(["id-2", "nobody", "id-0", "id-2"])
    assert [row["image_id"] for row in found] == ["id-2", "id-0"]
    assert found[0]["labels"] == ["face"]
    assert found[0]["scores"] == {"nsfw": 0.25}
    assert reader.images_by_id([]) == []


async def test_more_rows_than_the_limit_are_an_error(clickhouse_front: Any) -> None:
    with ClickHouseReader(
        ClickHouseSettings(
            host=clickhouse_front.host,
            port=clickhouse_front.port,
            username="writer",
            password=clickhouse_front.writer_password,
            database="default",
            query_max_rows=100,
        )
    ) as reader:
        with pytest.raises(QueryError, match="Limit for result exceeded"):
            reader.query("SELECT number FROM numbers(100000)")
        assert reader.query("SELECT number FROM numbers(100)").num_rows == 100


def test_a_database_that_is_not_there_yet_is_explained(clickhouse_front: Any) -> None:
    settings = ClickHouseSettings(
        host=clickhouse_front.host,
        port=clickhouse_front.port,
        username="analyst",
        password=clickhouse_front.analyst_password,
        database="not_made_yet",
    )
    with (
        ClickHouseReader(settings) as reader,
        pytest.raises(QueryError, match="a worker makes it at its first start"),
    ):
        reader.query("SELECT 1")


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        reader = ClickHouseReader(ClickHouseSettings(port=port))
        with pytest.raises(QueryError, match=rf"127\.0\.0\.1:{port} cannot be reached") as caught:
            reader.query("SELECT 1")
    assert caught.value.transient
