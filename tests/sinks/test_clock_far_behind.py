"""A machine whose clock is far behind writes rows that stay."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx
import pytest
from front_process import ClickHouseServer
from pydantic import SecretStr

from operators.frame import Frame, Origin
from sinks.clickhouse.reader import ClickHouseReader
from sinks.clickhouse.settings import ClickHouseSettings
from sinks.clickhouse.sink import ClickHouseSink


def merge(server: ClickHouseServer, table: str) -> None:
    """Have ClickHouse drop now what it drops sooner or later."""
    answer = httpx.post(
        f"http://{server.host}:{server.port}/",
        content=f"OPTIMIZE TABLE {table} FINAL",
        auth=("writer", server.writer_password),
        trust_env=False,
        timeout=60,
    )
    assert answer.status_code == 200


async def test_rows_from_a_clock_behind_the_retention_are_not_deleted_at_once(
    clickhouse_front: ClickHouseServer,
    unique: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = ClickHouseSettings(
        host=clickhouse_front.host,
        port=clickhouse_front.port,
        username="writer",
        password=SecretStr(clickhouse_front.writer_password),
        database=unique("behind").replace("-", "_"),
        retention_days=90,
    )
    reached_kafka = int(time.time() * 1000)
    sink = ClickHouseSink(settings)
    await sink.open()
    try:
        with monkeypatch.context() as behind:
            behind.setattr(time, "time_ns", lambda: 86_400 * 10**9)  # 2 January 1970
            origin = Origin("images", 0, 1, reached_kafka)
            await sink.write([Frame("image-1", "feed", reached_kafka, origin)])
    finally:
        await sink.close()
    merge(clickhouse_front, f"{settings.database}.images_raw")
    with ClickHouseReader(settings) as reader:
        rows = reader.query("SELECT image_id FROM images")
    assert rows.column("image_id").to_pylist() == ["image-1"]
