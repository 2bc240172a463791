"""The same sink and reader on the engine inside this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from operators.findings import Detection, Findings, TextLine
from operators.frame import Frame, Origin
from sinks.clickhouse.reader import ClickHouseReader, QueryError
from sinks.clickhouse.settings import ClickHouseSettings
from sinks.clickhouse.sink import ClickHouseSink

T0 = 1_790_000_000_000
TEXT = "it's\n\n\nSELECT 1; \0 😀"


# chDB opens one directory per process at a time, so the tests of this file share one.
@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ClickHouseSettings:
    path: Path = tmp_path_factory.mktemp("chdb")
    return ClickHouseSettings(interface="chdb", path=path, max_memory=500_000_000)


@pytest.fixture
def reader(settings: ClickHouseSettings) -> Iterator[ClickHouseReader]:
    with ClickHouseReader(settings) as reader:
        yield reader


def frames(count: int, boxes: int = 2) -> list[Frame]:
    quad = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    made = []
    for number in range(count):
        at = T0 + number
        frame = Frame(f"id-{number}", "door", at, Origin("images", 0, number, at), id_given=True)
        frame.findings = Findings(
            objects=[Detection("face", 0.5, (0, 0, 1, 1))] * boxes,
            texts=[TextLine(TEXT, 0.5, quad)],
        )
        if number % 5 == 4:
            frame.fail("decode", "not-an-image", TEXT)
        made.append(frame)
    return made


async def test_a_replay_is_exact_and_data_stays_when_the_engine_is_closed(
    settings: ClickHouseSettings,
) -> None:
    for size in (10, 3):
        sink = ClickHouseSink(settings)
        await sink.open()
        batch = frames(10)
        for begin in range(0, len(batch), size):
            await sink.write(batch[begin : begin + size])
        await sink.close()
        with ClickHouseReader(settings) as reader:
            found = reader.query(
                "SELECT (SELECT count() FROM images) AS images,"
                " (SELECT count() FROM detections) AS detections,"
                " (SELECT groupUniqArray(text) FROM texts) AS texts,"
                " (SELECT groupUniqArray(detail) FROM failures) AS details"
            ).to_pylist()
        assert found == [{"images": 8, "detections": 16, "texts": [TEXT], "details": [TEXT]}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 INTO OUTFILE '/dev/null'",
        "SELECT file('/etc/hostname')",
        "SELECT * FROM '/etc/hostname'",
        "SELECT * FROM url('http://127.0.0.1:1/', CSV, 'a String')",
        "CREATE TABLE imagewire.t (a Int8) ENGINE = Log",
        "SET readonly = 0",
    ],
)
async def test_the_reader_can_only_read(
    settings: ClickHouseSettings, reader: ClickHouseReader, sql: str
) -> None:
    sink = ClickHouseSink(settings)
    await sink.open()
    with pytest.raises(QueryError):
        reader.query(sql)
    assert reader.query("SELECT 1 AS one").to_pylist() == [{"one": 1}]
    # reading with limits leaves no setting behind that would stop the writer
    await sink.write(frames(3))
    await sink.close()
