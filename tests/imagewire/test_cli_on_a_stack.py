"""The commands that talk to a running stack: what they print, for people and for programs."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pytest
from running_up import RunningUp, Story, until

from imagewire.cli import run
from imagewire.embedded.broker import ExternalBroker
from imagewire.embedded.ports import free_port

pytestmark = [pytest.mark.xdist_group("end-to-end"), pytest.mark.timeout(600)]

IMAGEWIRE = [sys.executable, "-m", "imagewire"]
Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ask(
    up: RunningUp, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> Ask:
    """Runs a command on the stack; gives exit code, standard output and standard error."""
    monkeypatch.setenv("COLUMNS", "80")

    def run_on_stack(*arguments: str) -> tuple[int, str, str]:
        capfdbinary.readouterr()
        code = run([*arguments, "--data", str(up.directory)])
        sys.stdout.flush()
        printed = capfdbinary.readouterr()
        return code, printed.out.decode(), printed.err.decode()

    return run_on_stack


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


# up


def test_up_prints_addresses_and_commands_that_can_be_copied(up: RunningUp, story: Story) -> None:
    printed = up.output.read_text()
    record = json.loads((up.directory / "run.json").read_text())
    assert f"Kafka       {record['broker_address']}\n" in printed
    assert f"http://127.0.0.1:{record['worker_http_port']}/metrics" in printed
    assert f"\nimagewire watch --data {up.directory} verdicts\n" in printed
    assert printed.startswith("starting; this takes about half a minute")
    assert "worker: loading models" in printed
    for secret in ("writer_password", "analyst_password", "qdrant_api_key"):
        assert record[secret] not in printed


def test_a_second_up_on_the_same_directory_says_who_holds_it(
    up: RunningUp, capsys: pytest.CaptureFixture[str]
) -> None:
    assert up.process is not None
    assert run(["up", "--data", str(up.directory), *up.arguments]) == 1
    said = capsys.readouterr().err
    assert f"is held by process {up.process.pid} since" in said
    assert "Traceback" not in said
    until("the first is well", lambda: up.health().get("status") == "ok", 60)


# publish


def test_publish_says_where_each_image_went(ask: Ask, photos: Path) -> None:
    bus, cat = str(photos / "bus.jpg"), str(photos / "cat.png")
    code, out, err = ask("publish", bus, cat, "--feed", "cli", "--json")
    assert (code, err) == (0, "")
    published = lines(out)
    assert len(published) == 2
    assert {record["topic"] for record in published} == {"images"}
    assert all(record["image_id"] for record in published)
    assert {Path(record["name"].removeprefix("file://")) for record in published} == {
        photos / "bus.jpg",
        photos / "cat.png",
    }
    code, out, err = ask("publish", bus, cat, "--feed", "cli", "--lane", "bulk", "--inline")
    assert (code, out) == (0, "")
    assert err == "published 2 images to feed 'cli' (bulk)\n"


def test_publish_goes_on_after_a_file_that_is_too_large(
    ask: Ask, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large.jpg").write_bytes(bytes(40_000))
    (tmp_path / "small.jpg").write_bytes(b"\xff\xd8\xff")
    monkeypatch.setenv("IMAGEWIRE_KAFKA__MAX_RECORD_BYTES", "30000")
    code, out, err = ask("publish", str(tmp_path), "--feed", "cli-large")
    assert (code, out) == (1, "")
    assert "large.jpg is too large for a Kafka record" in err
    assert "published 1 images to feed 'cli-large' (live)" in err


# watch


def test_watch_shows_verdicts_with_the_rules_that_fired(ask: Ask, story: Story) -> None:
    code, out, err = ask(
        "watch", "verdicts", "--from-beginning", "--feed", "story", "--limit", str(len(story.good))
    )
    assert code == 0
    assert err.startswith("watching images.verdicts on 127.0.0.1:")
    shown = out.splitlines()
    assert len(shown) == len(story.good)
    for line in shown:
        assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z story \S+  (allow|review|block)", line), line


def test_watch_shows_findings_with_objects_and_text(ask: Ask, story: Story) -> None:
    arguments = ("--from-beginning", "--feed", "story", "--limit", str(len(story.good)))
    code, out, _ = ask("watch", "findings", *arguments)
    assert code == 0
    (sign,) = [line for line in out.splitlines() if " sign  " in line]
    assert "Platform 9 to Leeds" in sign
    code, out, _ = ask("watch", "findings", *arguments, "--json")
    assert {record["image_id"] for record in lines(out)} == story.good


def test_watch_shows_where_and_why_images_failed(ask: Ask, story: Story) -> None:
    arguments = ("--from-beginning", "--feed", "story", "--limit", str(len(story.dead)))
    code, out, _ = ask("watch", "failed", *arguments)
    assert code == 0
    assert "loopback  fetch: forbidden  " in out
    code, out, _ = ask("watch", "failed", *arguments, "--json")
    letters = {record["image_id"]: record for record in lines(out)}
    assert {name: (it["stage"], it["reason"]) for name, it in letters.items()} == story.dead
    letter = letters["empty"]
    assert letter["source_topic"] == "images"
    assert isinstance(letter["source_partition"], int)
    assert isinstance(letter["source_offset"], int)
    assert letter["attempt"] == 1
    assert letter["value_bytes"] == 0


def test_watch_shows_what_comes_from_now_on_and_ends_at_ctrl_c(up: RunningUp, photos: Path) -> None:
    watching = subprocess.Popen(
        [*IMAGEWIRE, "watch", "verdicts", "--feed", "now", "--data", str(up.directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert watching.stderr is not None
        assert watching.stdout is not None
        assert "what comes from now on; Ctrl-C ends" in watching.stderr.readline()
        assert run(
            ["publish", str(photos / "cat.png"), "--feed", "now", "--data", str(up.directory)]
        ) == 0  # fmt: skip
        assert " now " in watching.stdout.readline()
        began = time.monotonic()
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 130
        assert time.monotonic() - began < 30
        assert watching.stderr.read() == ""
    finally:
        watching.kill()
        watching.communicate()


def test_watch_ends_quietly_when_its_reader_has_enough(up: RunningUp, story: Story) -> None:
    watching = subprocess.Popen(
        [*IMAGEWIRE, "watch", "verdicts", "--from-beginning", "--data", str(up.directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert watching.stdout is not None
        assert watching.stderr is not None
        watching.stdout.close()
        said = watching.stderr.read()
        assert watching.wait(60) == 0
        assert "Traceback" not in said
        assert "Broken" not in said
    finally:
        watching.kill()
        watching.wait()


# sql

QUESTION = (
    "SELECT image_id, width, scores, labels, event_time FROM images "
    "WHERE feed = 'story' ORDER BY image_id"
)


def test_sql_prints_a_table_for_people(ask: Ask, story: Story) -> None:
    code, out, err = ask("sql", "SELECT feed, count() AS images FROM images WHERE feed = 'story' "
                         "GROUP BY feed")  # fmt: skip
    assert (code, err) == (0, "")
    assert re.search(rf"story +│ +{len(story.good)} ", out)
    assert "1 row\n" in out


def test_sql_speaks_json_csv_and_arrow_to_programs(
    ask: Ask, up: RunningUp, story: Story, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    code, out, _ = ask("sql", QUESTION, "--format", "json")
    assert code == 0
    rows = lines(out)
    assert {row["image_id"] for row in rows} == story.good
    assert all(isinstance(row["width"], int) for row in rows)
    assert all(isinstance(row["scores"], dict) and row["scores"] for row in rows)
    assert all(isinstance(row["labels"], list) for row in rows)

    code, out, _ = ask("sql", QUESTION, "--format", "csv")
    assert code == 0
    cells = list(csv.DictReader(io.StringIO(out)))
    assert [cell["image_id"] for cell in cells] == [row["image_id"] for row in rows]
    assert [json.loads(cell["scores"]) for cell in cells] == [row["scores"] for row in rows]

    capfdbinary.readouterr()
    assert run(["sql", QUESTION, "--format", "arrow", "--data", str(up.directory)]) == 0
    sys.stdout.flush()
    table = pyarrow.ipc.open_stream(capfdbinary.readouterr().out).read_all()
    assert table.column("image_id").to_pylist() == [row["image_id"] for row in rows]
    assert pa.types.is_timestamp(table.schema.field("event_time").type)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO images_raw (image_id) VALUES ('x')",
        "DROP TABLE images_raw",
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "SELECT 1 INTO OUTFILE '/tmp/x'",
        "SELECT 1; SELECT 2",
        "SELEKT 1",
        "SELECT nothing_of_the_kind FROM images",
        "SELECT 1 FORMAT JSON",
        "",
    ],
)
def test_sql_refuses_what_does_not_read_or_makes_no_sense(
    ask: Ask, story: Story, statement: str
) -> None:
    code, out, err = ask("sql", statement)
    assert (code, out) == (1, "")
    assert err.startswith("error ")
    assert "Traceback" not in err


def test_text_from_records_cannot_steer_the_terminal(ask: Ask) -> None:
    steering = "SELECT concat('a', char(27), '[2J', char(194, 155), 'b', char(155)) AS text"
    for style, expected in (
        ("table", r"a\x1b[2J"),
        ("json", r'{"text":"a\u001b[2J'),
    ):
        code, out, _ = ask("sql", steering, "--format", style)
        assert code == 0
        assert expected in out
        assert "\x1b" not in out
        assert "\x9b" not in out


# search


def test_search_finds_the_photo_itself_first(ask: Ask, story: Story, photos: Path) -> None:
    code, out, err = ask("search", str(photos / "bus.jpg"), "--feed", "story")
    assert (code, err) == (0, "")
    heading, first, *others = out.splitlines()
    assert heading.split() == ["score", "image", "feed", "verdict", "labels", "uri"]
    assert re.match(r"(1\.000|0\.99\d) +bus +story +(allow|review|block)", first.strip())
    assert len(others) >= len(story.good) - 1
    assert max(map(len, out.splitlines())) <= 80

    code, out, _ = ask("search", str(photos / "bus.jpg"), "--feed", "story", "--json")
    found = lines(out)
    assert found[0]["image_id"] == "bus"
    assert found[0]["feed"] == "story"
    assert [row["score"] for row in found] == sorted((row["score"] for row in found), reverse=True)  # type: ignore[type-var]


def test_search_by_id_leaves_the_image_itself_out(ask: Ask, story: Story) -> None:
    code, out, _ = ask("search", "--id", "bus", "--feed", "story", "--limit", "2", "--json")
    assert code == 0
    assert len(lines(out)) == 2
    assert "bus" not in [row["image_id"] for row in lines(out)]


def test_search_says_what_it_cannot_search_by(
    ask: Ask, story: Story, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "words.jpg").write_text("no picture")
    for arguments, words in (
        (["--id", "nobody"], "image 'nobody' is not stored in Qdrant"),
        ([str(tmp_path / "absent.jpg")], "absent.jpg cannot be read: No such file"),
        ([str(tmp_path)], "cannot be read: Is a directory"),
        ([str(tmp_path / "words.jpg")], "words.jpg: "),
    ):
        code, out, err = ask("search", *arguments)
        assert (code, out) == (1, ""), arguments
        assert words in err
    code, out, err = ask("search", "--id", "bus", "--feed", "no-such-feed")
    assert (code, out, err) == (1, "", "nothing found\n")


# the doctor


def test_the_doctor_finds_the_running_stack(ask: Ask, up: RunningUp, story: Story) -> None:
    code, out, _ = ask("doctor", "--json")
    checks = {check["name"]: check for check in lines(out)}
    assert code == 0
    for name in ("Kafka", "ClickHouse", "Qdrant"):
        assert checks[name]["outcome"] == "ok", checks[name]


# up that cannot start


@pytest.mark.parametrize("option", ["--http-port", "--clickhouse-port", "--broker-port"])
def test_up_names_a_port_that_is_taken(
    tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run(["up", "--data", str(tmp_path / "d"), "--broker", "tansu", option, port]) == 1
    said = capsys.readouterr().err
    assert port in said
    assert "Traceback" not in said
    assert not (tmp_path / "d").exists()


def test_up_names_a_broker_that_does_not_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ten seconds are for brokers that start as well.
    monkeypatch.setitem(ExternalBroker.__init__.__kwdefaults__, "timeout", 1.0)
    address = f"127.0.0.1:{free_port()}"
    assert run(["up", "--data", str(tmp_path / "d"), "--broker", address]) == 1
    said = capsys.readouterr().err
    assert address in said.splitlines()[-1]
    assert "Traceback" not in said


def test_up_stops_at_once_when_told_while_it_starts(tmp_path: Path) -> None:
    starting = subprocess.Popen(
        [*IMAGEWIRE, "up", "--data", str(tmp_path / "d"), "--broker", "tansu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until("it has begun", lambda: (tmp_path / "d" / "lock").exists(), 120)
        time.sleep(0.5)
        began = time.monotonic()
        os.kill(starting.pid, signal.SIGINT)
        code = starting.wait(120)
        assert code in (0, 130)
        assert time.monotonic() - began < 60
        assert starting.stdout is not None
        assert "Traceback" not in starting.stdout.read()
    finally:
        starting.kill()
        starting.communicate()
