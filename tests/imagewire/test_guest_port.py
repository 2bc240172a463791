"""What is promised of the port for ClickHouse clients of the user's own: they only read."""

from __future__ import annotations

import gzip
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import clickhouse_connect
import httpx
import lz4.frame  # type: ignore[import-untyped]
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from imagewire.embedded.ports import free_port, is_free
from imagewire.embedded.stack import Stack, StackPorts

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("guest-port")]


@dataclass
class Doors:
    """Both ports of a front, and the passwords."""

    own: str
    guests: int
    writer: str
    analyst: str

    def ask(self, sql: str, user: str, password: str) -> httpx.Response:
        url = f"http://127.0.0.1:{self.guests}/"
        return httpx.post(url, content=sql, auth=(user, password), trust_env=False, timeout=60)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    folder = tmp_path_factory.mktemp("guests")
    guests = free_port()
    writer, analyst = secrets.token_urlsafe(12), secrets.token_urlsafe(12)
    passwords = {
        "IMAGEWIRE_FRONT_WRITER_PASSWORD": writer,
        "IMAGEWIRE_FRONT_ANALYST_PASSWORD": analyst,
    }
    command = [sys.executable, "-m", "imagewire.embedded.clickhouse_front"]
    front = subprocess.Popen(
        [*command, "--path", str(folder / "data"), "--guest-port", str(guests)],
        env={**os.environ, **passwords},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert front.stdout is not None
    own = front.stdout.readline().split()[-1]
    try:
        made = "CREATE TABLE t (a UInt32) ENGINE = MergeTree ORDER BY a"
        for sql in (made, "INSERT INTO t VALUES (1), (2)"):
            httpx.post(
                own, content=sql, auth=("writer", writer), trust_env=False
            ).raise_for_status()
        yield Doors(own, guests, writer, analyst)
    finally:
        front.terminate()
        front.wait(60)
        front.stdout.close()


def test_a_body_that_is_no_statement_any_more_is_refused(doors: Doors) -> None:
    bomb = lz4.frame.compress(b"SELECT 1" + b" " * (1 << 25))
    assert len(bomb) < 1 << 20
    bodies = {"lz4": bomb, "gzip": gzip.compress(b"SELECT 1" + b" " * (1 << 25), 1)}
    for encoding, body in bodies.items():
        answer = httpx.post(
            f"http://127.0.0.1:{doors.guests}/",
            content=body,
            headers={"Content-Encoding": encoding},
            auth=("analyst", doors.analyst),
            trust_env=False,
            timeout=60,
        )
        assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (413, "131")
    cut = lz4.frame.compress(b"SELECT 1")[:-6]
    answer = httpx.post(
        f"http://127.0.0.1:{doors.guests}/",
        content=cut,
        headers={"Content-Encoding": "lz4"},
        auth=("analyst", doors.analyst),
        trust_env=False,
    )
    assert answer.status_code == 400


def test_a_client_of_the_users_own_reads(doors: Doors) -> None:
    with clickhouse_connect.get_client(
        host="127.0.0.1", port=doors.guests, username="analyst", password=doors.analyst
    ) as client:
        assert client.query("SELECT sum(a) FROM t").result_rows == [(3,)]
        assert client.query_arrow("SELECT a FROM t ORDER BY a").column("a").to_pylist() == [1, 2]
        # What Grafana's data source asks first.
        [[_, version, *_]] = client.query(
            "SELECT displayName(), version(), revision(), timezone()"
        ).result_rows
        assert version
        with pytest.raises(DatabaseError, match="ACCESS_DENIED"):
            client.command("DROP TABLE t")


async def test_so_does_an_asynchronous_one(doors: Doors) -> None:
    client = await clickhouse_connect.get_async_client(
        host="127.0.0.1", port=doors.guests, username="analyst", password=doors.analyst
    )
    try:
        assert (await client.query("SELECT max(a) FROM t")).result_rows == [(2,)]
    finally:
        await client.close()


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (9)",
        "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a String')",
        "SELECT file('/etc/hostname')",
        "SELECT 1 INTO OUTFILE '/nowhere/x'",
        "SYSTEM SHUTDOWN",
        "SELECT 1 SETTINGS max_execution_time = 0",
    ],
)
def test_it_only_reads_tables(doors: Doors, sql: str) -> None:
    assert doors.ask(sql, "analyst", doors.analyst).status_code in (403, 400)
    assert doors.ask("SELECT count() FROM t", "analyst", doors.analyst).text == "2\n"


def test_the_writer_cannot_log_in_there(doors: Doors) -> None:
    refused = doors.ask("SELECT 1", "writer", doors.writer)
    assert refused.status_code == 403 and "AUTHENTICATION_FAILED" in refused.text
    assert doors.ask("SELECT 1", "analyst", "wrong").status_code == 403


def test_guests_do_not_hold_up_the_stacks_own_questions(doors: Doors) -> None:
    slow = "SELECT sleepEachRow(0.5) FROM numbers(3)"
    with ThreadPoolExecutor(4) as pool:
        slow_ones = [pool.submit(doors.ask, slow, "analyst", doors.analyst) for _ in range(4)]
        answer = httpx.post(
            doors.own,
            content="SELECT 1",
            auth=("analyst", doors.analyst),
            trust_env=False,
            timeout=60,
        )
        assert answer.text == "1\n"
        assert not all(each.done() for each in slow_ones)
        assert [each.result().status_code for each in slow_ones] == [200] * 4


def test_up_offers_it_when_asked_only(tmp_path: Path) -> None:
    def front(ports: StackPorts) -> tuple[str, ...]:
        stack = Stack(tmp_path / "data", ports=ports)
        stack.directory.acquire()
        try:
            return stack._clickhouse().command
        finally:
            stack.directory.release()

    assert "--guest-port" not in front(StackPorts())
    assert front(StackPorts(sql=8123))[-2:] == ("--guest-port", "8123")
    any_free = front(StackPorts(sql=0))
    assert any_free[-2] == "--guest-port" and is_free(int(any_free[-1]))
