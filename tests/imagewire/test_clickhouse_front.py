"""What the embedded ClickHouse promises to clients and to whoever starts it."""

from __future__ import annotations

import base64
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clickhouse_connect
import httpx
import psutil
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from operators.frame import Frame, Origin
from sinks.clickhouse.reader import ClickHouseReader, QueryError
from sinks.clickhouse.settings import ClickHouseSettings
from sinks.clickhouse.sink import ClickHouseSink
from sinks.sink import TransientSinkError

FRONT = [sys.executable, "-m", "imagewire.embedded.clickhouse_front"]
PASSWORDS = {
    "IMAGEWIRE_FRONT_WRITER_PASSWORD": "write-secret",
    "IMAGEWIRE_FRONT_ANALYST_PASSWORD": "read-secret",
}


@dataclass
class Http:
    """ClickHouse's HTTP interface as a plain client speaks it."""

    url: str
    writer: tuple[str, str]
    analyst: tuple[str, str]

    def post(self, sql: str | bytes, user: str = "analyst", **options: Any) -> httpx.Response:
        auth = options.pop("auth", getattr(self, user))
        return httpx.post(
            self.url, content=sql, auth=auth, params=options, trust_env=False, timeout=60
        )


@pytest.fixture(scope="session")
def http(clickhouse_front: Any) -> Http:
    return Http(
        f"http://{clickhouse_front.host}:{clickhouse_front.port}/",
        ("writer", clickhouse_front.writer_password),
        ("analyst", clickhouse_front.analyst_password),
    )


@pytest.fixture
def database(http: Http) -> str:
    name = f"front_{secrets.token_hex(5)}"
    assert http.post(f"CREATE DATABASE {name}", "writer").status_code == 200
    return name


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], int]]]:
    """Starts a front of its own on `tmp_path` and returns it with its port."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> tuple[subprocess.Popen[str], int]:
        child = subprocess.Popen(
            [*FRONT, "--path", str(tmp_path / "data"), *arguments],
            env={**os.environ, **PASSWORDS},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(child)
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:"), line
        return child, int(line.rsplit(":", 1)[1])

    yield start
    for child in started:
        if child.poll() is None:
            child.kill()
        child.wait(60)
        if child.stdout is not None:
            child.stdout.close()


# the dialect


def test_ping_needs_no_password(http: Http) -> None:
    assert httpx.get(http.url + "ping", trust_env=False).text == "Ok.\n"


def test_a_plain_http_client_reads_and_writes(http: Http, database: str) -> None:
    http.post("CREATE TABLE t (a Int64, s String) ENGINE = MergeTree ORDER BY a", "writer",
              database=database).raise_for_status()  # fmt: skip
    data = b"1\tone\n2\ttwo\\n\\n\\nthree\n"
    http.post(data, "writer", database=database, query="INSERT INTO t FORMAT TSV"
              ).raise_for_status()  # fmt: skip
    http.post("INSERT INTO t VALUES (3, 'a'),\n\n\n(4, '; DROP TABLE t')", "writer",
              database=database).raise_for_status()  # fmt: skip
    answer = http.post("SELECT s FROM t ORDER BY a FORMAT JSONCompactColumns", database=database)
    assert answer.json() == [["one", "two\n\n\nthree", "a", "; DROP TABLE t"]]
    assert answer.headers["X-ClickHouse-Format"] == "JSONCompactColumns"
    got = httpx.get(
        http.url,
        params={"query": "SELECT max(a) FROM t", "database": database},
        headers={"X-ClickHouse-User": "analyst", "X-ClickHouse-Key": http.analyst[1]},
        trust_env=False,
    )
    assert got.text == "4\n"


def test_get_never_writes(http: Http, database: str) -> None:
    answer = httpx.get(
        http.url, params={"query": f"DROP DATABASE {database}"}, auth=http.writer, trust_env=False
    )
    assert answer.status_code == 403


@pytest.mark.parametrize("compress", [False, "lz4", "gzip", "zstd"])
def test_clickhouse_connect_works_with_any_compression(
    clickhouse_front: Any, database: str, compress: Any
) -> None:
    client = clickhouse_connect.get_client(
        host=clickhouse_front.host,
        port=clickhouse_front.port,
        username="writer",
        password=clickhouse_front.writer_password,
        database=database,
        compress=compress,
    )
    with client:
        client.command("CREATE TABLE t (a Int64, s Array(String)) ENGINE = MergeTree ORDER BY a")
        texts = ["x\n\n\nSELECT 1", "é\0😀", "'"]
        client.insert("t", [[n, texts] for n in range(2000)], column_names=["a", "s"])
        assert client.query("SELECT s FROM t WHERE a = {n:Int64}", {"n": 7}).result_rows == [
            (texts,)
        ]
        assert client.query("SELECT a, s FROM t WHERE 0").column_names == ("a", "s")
        assert client.query_arrow("SELECT * FROM t").num_rows == 2000
        many = [f"id-{n}\n'" for n in range(3000)]  # too long for a URL: sent as a form
        found = client.query("SELECT length({ids:Array(String)})", {"ids": many})
        assert found.result_rows == [(3000,)]


async def test_the_async_client_works(clickhouse_front: Any) -> None:
    client = await clickhouse_connect.get_async_client(
        host=clickhouse_front.host,
        port=clickhouse_front.port,
        username="analyst",
        password=clickhouse_front.analyst_password,
    )
    async with client:
        assert (await client.query("SELECT 1 + 1")).result_rows == [(2,)]


def test_settings_of_one_request_do_not_reach_the_next(http: Http) -> None:
    sql = "SELECT getSetting('max_threads')"
    assert http.post(sql, "writer", max_threads="3").text == "3\n"
    assert http.post("SET max_threads = 3", "writer").status_code == 200
    assert http.post(sql, "writer").text != "3\n"


def test_a_query_id_cannot_forge_headers(http: Http) -> None:
    answer = http.post("SELECT 1", query_id="a\r\nX-Forged: 1")
    assert answer.status_code == 200
    assert "X-Forged" not in answer.headers
    assert http.post("SELECT 1", query_id="mine-1").headers["X-ClickHouse-Query-Id"] == "mine-1"


def test_errors_carry_clickhouse_s_code(http: Http) -> None:
    answer = http.post("SELECT nonsense")
    assert answer.status_code == 404
    assert answer.headers["X-ClickHouse-Exception-Code"] == "47"
    assert "nonsense" in answer.text
    assert http.post("").headers["X-ClickHouse-Exception-Code"] == "62"
    assert http.post("SELECT 'open", "writer").headers["X-ClickHouse-Exception-Code"] == "62"
    assert http.post("SELECT 1", compress="1").status_code == 501


# who may do what


@pytest.mark.parametrize(
    "auth",
    [None, ("analyst", "wrong"), ("writer", ""), ("", ""), ("default", ""), ("nobody", "x")],
)
def test_nobody_gets_in_without_the_password(http: Http, auth: tuple[str, str] | None) -> None:
    answer = http.post("SELECT 1", auth=auth)
    assert answer.status_code == 403
    assert answer.headers["X-ClickHouse-Exception-Code"] == "516"


@pytest.mark.parametrize("credentials", [b"\xff\xfe:x", b"analyst", b":"])
def test_broken_credentials_are_refused(http: Http, credentials: bytes) -> None:
    header = {"Authorization": "Basic " + base64.b64encode(credentials).decode()}
    answer = httpx.post(http.url, content="SELECT 1", headers=header, trust_env=False)
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t (a Int8) ENGINE = Log",
        "CREATE TEMPORARY TABLE t (a Int8)",
        "INSERT INTO t VALUES (1)",
        "DROP DATABASE {database}",
        "SET readonly = 0",
        "KILL QUERY WHERE 1",
        "SYSTEM SHUTDOWN",
        "SELECT 1; SELECT 2",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 SETTINGS max_execution_time = 0",
        "SELECT 1 INTO OUTFILE '{out}'",
        "SELECT 1 INTO/* */OUTFILE '{out}'",
        "SELECT 1 INTO -- \n OUTFILE '{out}'",
        "SHOW DATABASES INTO OUTFILE '{out}'",
        "EXPLAIN SELECT 1 INTO OUTFILE '{out}'",
        "SELECT '\\'' INTO OUTFILE '{out}' --'",
        "SELECT 1 -- '\n INTO OUTFILE '{out}'",
        "SELECT file('{secret}')",
        "SELECT `file`('{secret}')",
        "SELECT `fil\\x65`('{secret}')",
        "SELECT arrayMap(file, ['{secret}'])",
        "SELECT file/**/('{secret}')",
        "WITH file AS f SELECT f('{secret}')",
        "SELECT * FROM file('{secret}', CSV, 'a String')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM `{secret}`",
        "SELECT * FROM default.`{secret}`",
        "DESCRIBE TABLE file('{secret}')",
        "SELECT * FROM url('{url}', CSV, 'a String')",
        "DESCRIBE TABLE url('{url}')",
        "SELECT * FROM s3('{url}', CSV, 'a String')",
        "SELECT * FROM remote('127.0.0.1', system.one)",
        "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
        "SELECT * FROM executable('id', TSV, 'a String')",
        "SELECT * FROM python('os')",
        "SELECT * FROM eval('SELECT 1')",
        "SELECT * FROM sqlite('{secret}', 't')",
        "SELECT 1 FORMAT Template SETTINGS format_template_row = '{secret}'",
    ],
)
def test_an_analyst_only_reads_tables(http: Http, database: str, tmp_path: Path, sql: str) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("top-secret\n")
    out = tmp_path / "out"
    statement = sql.format(database=database, out=out, secret=secret, url=http.url)
    answer = http.post(statement, database=database)
    assert answer.status_code >= 400, answer.text
    assert "top-secret" not in answer.text
    assert not out.exists()
    assert http.post("SELECT count() FROM system.databases WHERE name = {d:String}",
                     param_d=database).text == "1\n"  # fmt: skip


def test_a_parameter_cannot_name_a_file(http: Http, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("top-secret\n")
    for sql in ("SELECT * FROM {p:Identifier}", "SELECT {p:Identifier}('x')"):
        answer = http.post(sql, param_p=str(secret))
        assert answer.status_code >= 400
        assert "top-secret" not in answer.text


@pytest.mark.parametrize(
    "setting",
    ["format_template_row", "output_format_schema", "allow_introspection_functions", "readonly_"],
)
def test_an_analyst_may_not_send_other_settings(http: Http, setting: str) -> None:
    answer = http.post("SELECT 1", **{setting: "1"})
    assert answer.headers["X-ClickHouse-Exception-Code"] == "164"


def test_an_analyst_may_lower_limits_and_never_raise_them(http: Http) -> None:
    sql = "SELECT getSetting('max_execution_time'), getSetting('readonly')"
    assert http.post(sql, max_execution_time="5").text == "5\t1\n"
    assert http.post(sql, max_execution_time="0", readonly="0").text == "60\t1\n"
    assert http.post(sql, max_execution_time="1e9").text == "60\t1\n"
    assert http.post(sql, max_execution_time="x").status_code == 400


def test_a_query_that_takes_too_long_or_too_much_ends(http: Http) -> None:
    slow = http.post("SELECT sum(sipHash64(number)) FROM numbers(1e13)", max_execution_time="0.5")
    assert slow.headers["X-ClickHouse-Exception-Code"] == "159"
    large = http.post("SELECT groupArray(number) FROM numbers(1e9)", max_memory_usage="50000000")
    assert large.headers["X-ClickHouse-Exception-Code"] == "241"
    assert http.post("SELECT 1").text == "1\n"


ENDLESS = "SELECT sum(sipHash64(number)) FROM numbers(1e13)"
RUNNING = "SELECT count() FROM system.processes WHERE query LIKE 'SELECT sum(sipHash64%'"


@contextmanager
def endless_queries(url: str, user: str, password: str, count: int) -> Iterator[None]:
    """Clients that ask for something that takes hours; killed at the end."""
    program = (
        "import sys, httpx; httpx.post(sys.argv[1], content=sys.argv[2], timeout=600,"
        " trust_env=False, auth=(sys.argv[3], sys.argv[4]))"
    )
    clients = [
        subprocess.Popen(
            [sys.executable, "-c", program, url + "?max_threads=1", ENDLESS, user, password],
            stderr=subprocess.DEVNULL,
        )
        for _ in range(count)
    ]
    try:
        yield
    finally:
        for client in clients:
            client.kill()
            client.wait()


def wait_until_running(http: Http, count: int) -> None:
    deadline = time.monotonic() + 90
    while int(http.post(RUNNING, "writer").text) < count:
        assert time.monotonic() < deadline, "the endless queries never began"
        time.sleep(0.1)


def test_slow_analysts_do_not_hold_up_the_writer(http: Http) -> None:
    with endless_queries(http.url, *http.analyst, 5):
        wait_until_running(http, 4)  # four threads serve analysts
        assert http.post("SELECT 1", "writer").text == "1\n"
        assert int(http.post(RUNNING, "writer").text) == 4
    while int(http.post(RUNNING, "writer").text):
        http.post("KILL QUERY WHERE query LIKE 'SELECT sum(sipHash64%' SYNC", "writer")


# its life


def connect(port: int, user: str = "writer", password: str = "write-secret") -> Any:
    return clickhouse_connect.get_client(
        host="127.0.0.1", port=port, username=user, password=password
    )


def test_data_stays_across_restarts_and_a_stop_is_quick_and_clean(start: Any) -> None:
    for round_number in range(2):
        child, port = start()
        with connect(port) as client:
            client.command("CREATE DATABASE IF NOT EXISTS d")
            client.command("CREATE TABLE IF NOT EXISTS d.t (a Int8) ENGINE=MergeTree ORDER BY a")
            assert client.command("SELECT count() FROM d.t") == round_number
            client.insert("d.t", [[1]])
        begin = time.monotonic()
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0
        assert time.monotonic() - begin < 30


def test_a_stop_does_not_wait_for_a_long_query(start: Any) -> None:
    child, port = start()
    writer = ("writer", "write-secret")
    own = Http(f"http://127.0.0.1:{port}/", writer, writer)
    with endless_queries(own.url, *writer, 1):
        wait_until_running(own, 1)
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0


def test_nothing_acknowledged_is_lost_when_it_is_killed(start: Any) -> None:
    child, port = start()
    with connect(port) as client:
        client.command("CREATE DATABASE d")
        client.command("CREATE TABLE d.t (a Int32) ENGINE=MergeTree ORDER BY a")
        for n in range(20):
            client.insert("d.t", [[n]], column_names=["a"], settings={"async_insert": 0})
        child.kill()
        child.wait(60)
    _, port = start()
    with connect(port) as client:
        assert client.command("SELECT count() FROM d.t") == 20


async def test_a_sink_goes_on_after_a_restart(start: Any) -> None:
    child, port = start()
    sink = ClickHouseSink(ClickHouseSettings(port=port, username="writer", password="write-secret"))
    await sink.open()
    frames = [Frame("a", "door", 1000, Origin("images", 0, n, 1000)) for n in range(2)]
    await sink.write(frames)
    child.terminate()
    child.wait(60)
    with pytest.raises(TransientSinkError):
        await sink.write(frames)
    start("--port", str(port))
    await sink.write(frames)
    await sink.close()
    with connect(port) as client:
        assert client.command("SELECT count() FROM imagewire.images") == 1


def test_the_engine_in_process_names_who_has_its_directory(start: Any, tmp_path: Path) -> None:
    child, _ = start()
    settings = ClickHouseSettings(interface="chdb", path=tmp_path / "data")
    with (
        ClickHouseReader(settings) as reader,
        pytest.raises(QueryError, match=f"in use by process {child.pid}"),
    ):
        reader.query("SELECT 1")


def test_a_directory_in_use_is_refused_with_the_process_that_has_it(
    start: Any, tmp_path: Path
) -> None:
    child, _ = start()
    second = subprocess.run(
        [*FRONT, "--path", str(tmp_path / "data")],
        env={**os.environ, **PASSWORDS},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert second.returncode == 1
    assert f"in use by process {child.pid}" in second.stderr


def test_a_port_in_use_is_refused(start: Any, tmp_path: Path) -> None:
    _, port = start()
    second = subprocess.run(
        [*FRONT, "--path", str(tmp_path / "other"), "--port", str(port)],
        env={**os.environ, **PASSWORDS},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in second.stderr


def test_without_passwords_it_does_not_start(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("IMAGEWIRE_")}
    ended = subprocess.run(
        [*FRONT, "--path", str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert ended.returncode == 1
    assert "IMAGEWIRE_FRONT_WRITER_PASSWORD" in ended.stderr


def test_passwords_are_not_on_its_command_line(start: Any) -> None:
    child, _ = start()
    assert "secret" not in " ".join(psutil.Process(child.pid).cmdline())


def test_it_ends_when_its_parent_dies(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c",
         "import subprocess, sys, time\n"
         "child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)\n"
         "child.stdout.readline(); print(child.pid, flush=True); time.sleep(600)",
         *FRONT, "--path", str(tmp_path)],
        env={**os.environ, **PASSWORDS},
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    with parent.stdout:
        front = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait(60)
    try:
        front.wait(60)
    except psutil.TimeoutExpired:
        front.kill()
        pytest.fail("the front outlived its parent")


def test_a_wrong_password_is_not_retried_by_clients(start: Any) -> None:
    _, port = start()
    with pytest.raises(DatabaseError, match="Authentication failed") as caught:
        connect(port, password="guess")
    assert caught.value.code == 516
