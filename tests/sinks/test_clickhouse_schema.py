"""What the migrations and the retention of the ClickHouse tables promise."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from sinks.clickhouse.connection import connect
from sinks.clickhouse.schema import Migration, migrate, set_retention, shipped_migrations
from sinks.clickhouse.settings import ClickHouseSettings
from sinks.sink import PermanentSinkError


@pytest.fixture
def settings(clickhouse_front: Any) -> ClickHouseSettings:
    return ClickHouseSettings(
        host=clickhouse_front.host,
        port=clickhouse_front.port,
        username="writer",
        password=clickhouse_front.writer_password,
        database=f"schema_{secrets.token_hex(5)}",
    )


@pytest.fixture
def client(settings: ClickHouseSettings) -> Iterator[Client]:
    client = connect(settings)
    yield client
    client.close()


def tables(client: Client, database: str) -> dict[str, str]:
    return dict(
        client.query(
            "SELECT name, create_table_query FROM system.tables WHERE database = {d:String}",
            parameters={"d": database},
        ).result_rows
    )


def test_migrations_are_applied_once(client: Client, settings: ClickHouseSettings) -> None:
    numbers = [migration.number for migration in shipped_migrations()]
    assert migrate(client, settings.database) == numbers
    made = tables(client, settings.database)
    assert {"images", "detections", "texts", "scores", "verdicts", "rules_fired", "failures",
            "counts_hourly", "verdicts_hourly", "latency_hourly"} <= set(made)  # fmt: skip
    assert migrate(client, settings.database) == []
    assert tables(client, settings.database) == made


def test_every_statement_can_run_twice(client: Client, settings: ClickHouseSettings) -> None:
    migrate(client, settings.database)
    made = tables(client, settings.database)
    client.command(f"TRUNCATE TABLE {settings.database}.schema_migrations")
    assert migrate(client, settings.database) == [m.number for m in shipped_migrations()]
    assert tables(client, settings.database) == made


def test_workers_that_start_at_once_agree(client: Client, settings: ClickHouseSettings) -> None:
    def start(_: int) -> None:
        own = connect(settings)
        try:
            migrate(own, settings.database)
            set_retention(own, settings.database, 30)
        finally:
            own.close()

    with ThreadPoolExecutor(4) as workers:
        list(workers.map(start, range(4)))
    recorded = client.query(
        f"SELECT number FROM {settings.database}.schema_migrations FINAL ORDER BY number"
    ).result_columns[0]
    assert list(recorded) == [migration.number for migration in shipped_migrations()]
    assert "toIntervalDay(30)" in tables(client, settings.database)["images_raw"]


def test_an_applied_migration_that_was_edited_is_refused(
    client: Client, settings: ClickHouseSettings
) -> None:
    first = Migration(1, "things", "CREATE TABLE IF NOT EXISTS ${database}.a (x Int8) ENGINE=Log")
    assert migrate(client, settings.database, [first]) == [1]
    edited = replace(first, sql=first.sql.replace("Int8", "Int16"))
    with pytest.raises(PermanentSinkError, match="0001_things was applied"):
        migrate(client, settings.database, [edited])


def test_a_newer_migration_is_applied_to_an_older_database(
    client: Client, settings: ClickHouseSettings
) -> None:
    first = Migration(1, "a", "CREATE TABLE IF NOT EXISTS ${database}.a (x Int8) ENGINE=Log")
    second = Migration(2, "b", "CREATE TABLE IF NOT EXISTS ${database}.b (x Int8) ENGINE=Log;")
    migrate(client, settings.database, [first])
    assert migrate(client, settings.database, [first, second]) == [2]


def test_rows_of_an_older_version_stay_readable(
    client: Client, settings: ClickHouseSettings
) -> None:
    database = settings.database
    migrations = shipped_migrations()
    migrate(client, database, migrations[:2])
    client.command(
        f"INSERT INTO {database}.images_raw (image_id, event_time, feed, verdict, rules.rule, "
        "rules.action, rules.explanation, texts.text, texts.score, texts.quad) "
        "SELECT 'old', now(), 'door', 'review', ['faces', 'crowd'], ['review', 'allow'], "
        "['a face', ''], ['Sale'], [0.5], [[0., 0.]]"
    )
    migrate(client, database, migrations)
    fired = client.query(
        f"SELECT rule, explanation, priority, severity, category, shadow "
        f"FROM {database}.rules_fired ORDER BY rule"
    ).result_rows
    assert fired == [("crowd", "", 0, "", "", False), ("faces", "a face", 0, "", "", False)]
    assert client.query(f"SELECT rules, shadow_rules FROM {database}.images").result_rows == [
        (["faces", "crowd"], [])
    ]
    assert client.query(f"SELECT rules FROM {database}.verdicts").result_rows == [
        (["faces", "crowd"],)
    ]
    assert client.query(
        f"SELECT texts.normal, hashes, similar, terms, faces FROM {database}.images_raw"
    ).result_rows == [([""], "[]", "[]", "[]", "[]")]
    for view in ("hash_matches", "similar_matches", "term_matches"):
        assert client.command(f"SELECT count() FROM {database}.{view}") == 0


def test_matches_of_banlists_name_the_entry_also_of_rows_from_before_it_was_kept(
    client: Client, settings: ClickHouseSettings
) -> None:
    migrate(client, settings.database)
    database = settings.database
    old = '[{"list":"l","kind":"pdq","distance":3,"reason":"r","action":"block"}]'
    new = old[:-2] + ',"entry":"ab","turned":"mirrored"}]'
    client.command(
        f"INSERT INTO {database}.images_raw (image_id, hashes) VALUES ('old', '{old}'), "
        f"('new', '{new}')"
    )
    found = client.query(
        f"SELECT image_id, list, distance, entry, turned FROM {database}.hash_matches "
        "ORDER BY image_id"
    ).result_rows
    assert found == [("new", "l", 3, "ab", "mirrored"), ("old", "l", 3, "", "")]


def test_sums_of_feeds_follow_repeats_erasures_and_rows_from_before(
    client: Client, settings: ClickHouseSettings
) -> None:
    """They are what parts keep beside their rows, so nobody has to read the rows."""
    database = settings.database
    table = f"{database}.images_raw"
    rows = (
        f"INSERT INTO {table} (image_id, event_time, feed, verdict) SELECT toString(number), "
        "toDateTime64('2026-01-01', 3) + number, concat('f', toString(number % 2)), 'block' "
        "FROM numbers({})"
    )
    migrate(client, database, [each for each in shipped_migrations() if each.number < 70])
    client.command(rows.format(4))
    migrate(client, database)
    client.command(rows.format(6))
    sums = f"SELECT feed, count(), max(event_time) FROM {table} GROUP BY feed ORDER BY feed"
    plan = client.query(f"EXPLAIN projections = 1 {sums}").result_rows
    assert "by_feed" in str(plan)

    def counted() -> list[int]:
        return [row[1] for row in client.query(sums).result_rows]

    assert counted() == [5, 5]  # four came again, and are not merged yet
    client.command(f"OPTIMIZE TABLE {table} FINAL")
    assert counted() == [3, 3]
    sync = {"mutations_sync": 1}
    client.command(f"ALTER TABLE {table} DELETE WHERE image_id = '4'", settings=sync)
    assert counted() == [2, 3]
    client.command(f"ALTER TABLE {table} DELETE WHERE feed = 'f0'", settings=sync)
    assert counted() == [3]


def test_a_database_of_a_newer_version_is_used_with_a_warning(
    client: Client, settings: ClickHouseSettings, caplog: pytest.LogCaptureFixture
) -> None:
    later = Migration(9000, "later", "CREATE TABLE IF NOT EXISTS ${database}.z (x Int8) ENGINE=Log")
    migrate(client, settings.database, [later])
    migrate(client, settings.database)
    assert "9000" in caplog.text


def test_retention_follows_the_setting(client: Client, settings: ClickHouseSettings) -> None:
    migrate(client, settings.database)
    both = ["images_raw", "failures_raw"]
    assert set_retention(client, settings.database, 90) == both
    assert set_retention(client, settings.database, 90) == []
    assert set_retention(client, settings.database, 7) == both
    assert "toIntervalDay(7)" in tables(client, settings.database)["failures_raw"]
    assert set_retention(client, settings.database, 0) == both
    assert "TTL" not in tables(client, settings.database)["images_raw"]


def test_rows_older_than_the_retention_go(client: Client, settings: ClickHouseSettings) -> None:
    migrate(client, settings.database)
    set_retention(client, settings.database, 7)
    client.command(
        f"INSERT INTO {settings.database}.images_raw (image_id, ingested_at) "
        "SELECT toString(number), now64(3) - toIntervalDay(number * 5) FROM numbers(4)"
    )
    client.command(f"OPTIMIZE TABLE {settings.database}.images_raw FINAL")
    kept = client.query(f"SELECT image_id FROM {settings.database}.images ORDER BY image_id")
    assert list(kept.result_columns[0]) == ["0", "1"]


def test_a_database_name_that_is_no_name_is_refused() -> None:
    with pytest.raises(ValueError, match="database"):
        ClickHouseSettings(database="a; DROP TABLE b")


def test_an_engine_in_process_needs_a_directory() -> None:
    with pytest.raises(ValueError, match=r"clickhouse\.path"):
        ClickHouseSettings(interface="chdb")
