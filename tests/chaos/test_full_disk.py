"""A disk without room: what ClickHouse did not keep must not be called written.

The table is told to leave more of the disk free than there is, which ClickHouse checks where it
checks for room, at the end of an insert.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from front_process import ClickHouseServer
from pydantic import SecretStr

from operators.frame import Frame, Origin
from sinks.clickhouse.reader import ClickHouseReader
from sinks.clickhouse.settings import ClickHouseSettings
from sinks.clickhouse.sink import ClickHouseSink
from sinks.sink import TransientSinkError

_ENDLESS = 10**18


def command(server: ClickHouseServer, sql: str) -> httpx.Response:
    return httpx.post(
        f"http://{server.host}:{server.port}/",
        content=sql,
        auth=("writer", server.writer_password),
        trust_env=False,
        timeout=60,
    )


def frame(number: int) -> Frame:
    origin = Origin("images", 0, number, 1_700_000_000_000 + number)
    return Frame(f"image-{number}", "feed", origin.timestamp_ms, origin)


async def test_rows_that_a_full_disk_refuses_are_kept_and_written_when_there_is_room_again(
    clickhouse_front: ClickHouseServer, unique: Callable[[str], str]
) -> None:
    database = unique("full").replace("-", "_")
    settings = ClickHouseSettings(
        host=clickhouse_front.host,
        port=clickhouse_front.port,
        username="writer",
        password=SecretStr(clickhouse_front.writer_password),
        database=database,
    )
    table = f"{database}.images_raw"
    sink = ClickHouseSink(settings)
    await sink.open()
    try:
        full = f"MODIFY SETTING min_free_disk_bytes_to_perform_insert = {_ENDLESS}"
        assert command(clickhouse_front, f"ALTER TABLE {table} {full}").status_code == 200
        with pytest.raises(TransientSinkError, match="NOT_ENOUGH_SPACE"):
            await sink.write([frame(1), frame(2)])
        room = "RESET SETTING min_free_disk_bytes_to_perform_insert"
        assert command(clickhouse_front, f"ALTER TABLE {table} {room}").status_code == 200
        await sink.write([frame(1), frame(2)])
    finally:
        await sink.close()
    with ClickHouseReader(settings) as reader:
        rows = reader.query("SELECT image_id FROM images ORDER BY image_id")
    assert rows.column("image_id").to_pylist() == ["image-1", "image-2"]


def make_read_only(folder: Path, read_only: bool) -> bool:
    """Let nothing be made in `folder`, also for root; returns whether that can be done here."""
    if os.geteuid() != 0:
        folder.chmod(0o500 if read_only else 0o700)
        return True
    chattr = shutil.which("chattr")
    if chattr is None:
        return False
    flag = "+i" if read_only else "-i"
    return subprocess.run([chattr, flag, folder], check=False, capture_output=True).returncode == 0


async def test_rows_that_a_read_only_folder_refuses_are_kept_and_written_when_it_can_be(
    clickhouse_front: ClickHouseServer, unique: Callable[[str], str]
) -> None:
    database = unique("readonly").replace("-", "_")
    settings = ClickHouseSettings(
        host=clickhouse_front.host,
        port=clickhouse_front.port,
        username="writer",
        password=SecretStr(clickhouse_front.writer_password),
        database=database,
    )
    sink = ClickHouseSink(settings)
    await sink.open()
    try:
        where = f"SELECT data_paths[1] FROM system.tables WHERE database = '{database}'"
        answer = command(clickhouse_front, f"{where} AND name = 'images_raw' FORMAT TSV")
        folder = Path(answer.text.strip())
        if not make_read_only(folder, True):
            pytest.skip("root can write everywhere here (chattr +i does not work)")
        try:
            with pytest.raises(TransientSinkError, match=r"(?i)filesystem error|cannot open file"):
                await sink.write([frame(1), frame(2)])
        finally:
            make_read_only(folder, False)
        await sink.write([frame(1), frame(2)])
    finally:
        await sink.close()
    with ClickHouseReader(settings) as reader:
        rows = reader.query("SELECT image_id FROM images ORDER BY image_id")
    assert rows.column("image_id").to_pylist() == ["image-1", "image-2"]


@pytest.mark.parametrize(
    "insert",
    [
        "INSERT INTO {} SETTINGS async_insert = 0 FORMAT TSV\n1\tone\n2\ttwo\n",
        "INSERT INTO {} (n, word) VALUES (1, 'one'),\n\n(2, 'two')",
        "INSERT INTO {} (word, n) SETTINGS async_insert = 0 FORMAT CSV\none,1\ntwo,2\n",
    ],
    ids=["TSV", "VALUES", "CSV"],
)
def test_an_insert_says_how_many_rows_it_wrote(
    clickhouse_front: ClickHouseServer, unique: Callable[[str], str], insert: str
) -> None:
    table = unique("words").replace("-", "_")
    create = f"CREATE TABLE {table} (n UInt32, word String) ENGINE = MergeTree ORDER BY n"
    assert command(clickhouse_front, create).status_code == 200
    answer = command(clickhouse_front, insert.format(table))
    assert answer.status_code == 200
    assert '"written_rows":"2"' in answer.headers["X-ClickHouse-Summary"].replace(" ", "")
    assert command(clickhouse_front, f"SELECT count() FROM {table}").text.strip() == "2"
