"""The queries that the documentation shows are run as they stand there."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from operators.findings import (
    Detection,
    Findings,
    Fingerprint,
    ImageInfo,
    RuleHit,
    TextLine,
    Verdict,
)
from operators.frame import Frame, Origin
from sinks.clickhouse.reader import ClickHouseReader
from sinks.clickhouse.settings import ClickHouseSettings
from sinks.clickhouse.sink import ClickHouseSink

PAGE = (Path(__file__).parents[2] / "docs" / "sql.md").read_text("utf-8")
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
VIEWS = re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", PAGE.partition("###")[0], re.MULTILINE)


@pytest.fixture
async def reader(clickhouse_front: Any) -> AsyncIterator[ClickHouseReader]:
    """A reader of two equal pictures of now, one of which is blocked, and one that failed."""
    settings = ClickHouseSettings(
        host=clickhouse_front.host,
        port=clickhouse_front.port,
        username="writer",
        password=clickhouse_front.writer_password,
        database=f"docs_{secrets.token_hex(5)}",
    )
    sink = ClickHouseSink(settings)
    await sink.open()
    now = time.time_ns() // 1_000_000
    frames = []
    for number in range(3):
        frame = Frame(
            f"id-{number}", "door", now, Origin("images", 0, number, now), metadata={"shop": "7"}
        )
        rules = [RuleHit("faces", "block", "a face was seen")] if number else []
        frame.findings = Findings(
            image=ImageInfo(10, 10, "jpeg", 100),
            fingerprint=Fingerprint("ab" * 32),
            objects=[Detection("face", 0.5, (0, 0, 9, 9))],
            texts=[TextLine("Summer SALE", 0.9, ((0, 0), (1, 0), (1, 1), (0, 1)))],
            scores={"nsfw": 0.1},
            verdict=Verdict("block" if rules else "allow", "p1", rules),
        )
        frames.append(frame)
    frames[2].fail("fetch", "http-status", "the server answered 404")
    await sink.write(frames)
    await sink.close()
    with ClickHouseReader(settings) as reader:
        yield reader


def test_every_query_of_the_page_answers(reader: ClickHouseReader) -> None:
    assert len(QUERIES) == 10
    for sql in QUERIES:
        assert reader.query(sql).num_rows > 0, sql


def test_every_column_is_described(reader: ClickHouseReader) -> None:
    assert len(VIEWS) >= 13
    shown = [row["name"] for row in reader.query("SHOW TABLES").to_pylist()]
    assert set(VIEWS) == {name for name in shown if not name.endswith(("_raw", "_migrations"))}
    described = PAGE.partition("### Columns that")[2].partition("## Ten queries")[0]
    for view in VIEWS:
        for column in reader.query(f"DESCRIBE TABLE {view}").to_pylist():
            assert f"`{column['name']}`" in described, f"{view}.{column['name']}"
