"""`imagewire demo` accounts for every picture, and its exit code says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from analysts_walk import questions
from shared_broker import missing

from imagewire.cli import run
from imagewire.demo.run import quantile

pytestmark = [pytest.mark.xdist_group("end-to-end"), pytest.mark.timeout(600)]


@pytest.fixture(params=["apache", "tansu"])
def broker(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if reason := missing(name):
        if os.environ.get("CI"):
            pytest.fail(f"CI must test on {name}: {reason}")
        pytest.skip(f"{name} cannot run here: {reason}")
    return name


def test_the_demonstration_loses_and_doubles_nothing(tmp_path: Path, broker: str) -> None:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    result = subprocess.run(
        [
            *(sys.executable, "-m", "imagewire", "demo", "--broker", broker),
            *("--keep", str(tmp_path / "kept"), "--json"),
        ],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        cwd=tmp_path,
        # Reading text is most of the time; what it reads is tested elsewhere.
        env={**os.environ, "IMAGEWIRE_OPERATORS__TEXT__ENABLED": "false"},
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    told = json.loads(result.stdout)
    assert told["lost"] == 0
    assert told["doubled"] == 0
    assert told["published"] >= 60
    assert told["dead_letters"] == 2
    assert told["findings"] == told["published"] - 2
    assert told["images_per_second"] > 0
    assert 0 < told["latency_p50_ms"] <= told["latency_p99_ms"]
    assert told["broker"] == broker
    report = Path(told["report"])
    assert report == tmp_path / "demo.html"
    page = report.read_text()
    assert "bus.jpg" in page
    assert "truncated.jpg" in page
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before
    analysts_find_what_their_walk_shows(tmp_path / "kept" / "data" / "clickhouse")


def analysts_find_what_their_walk_shows(directory: Path) -> None:
    """docs/analysts.md is run as it stands there; what text says is not, as none was read."""
    page = Path(__file__).parents[2] / "docs" / "analysts.md"
    walk = Path(__file__).parents[1] / "servers" / "analysts_walk.py"
    answered = subprocess.run(
        [sys.executable, str(walk), str(page), str(directory)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answered.returncode == 0, answered.stderr
    asked = questions(page)
    answers = json.loads(answered.stdout)
    assert len(asked) == len(answers) == 10
    for question, answer in zip(asked, answers, strict=True):
        assert answer["columns"] == question.columns, question.sql
        if "FROM texts" in question.sql or "FROM rules_fired" in question.sql:
            continue  # all rules that fire are about text
        assert answer["rows"], question.sql
        # Without text, pictures are decoded smaller, by which hashes and scores differ a little.
        if any(words in question.sql for words in ("BY label", "labels AS", "BY format")):
            shown, found = by_words(question.rows), by_words(answer["rows"])
            # Processors round differently, and a doubtful object comes or goes.
            assert len(shown.keys() ^ found.keys()) <= 1, question.sql
            for words in shown.keys() & found.keys():
                assert found[words] == pytest.approx(shown[words], rel=0.3, abs=2), question.sql


def by_words(rows: Sequence[Sequence[object]]) -> dict[tuple[str, ...], list[float]]:
    """The numbers of each row by its words; a page has numbers as text."""
    found = {}
    for row in rows:
        numbers = [str(value).replace(".", "", 1).removeprefix("-").isdigit() for value in row]
        words = tuple(str(v) for v, number in zip(row, numbers, strict=True) if not number)
        found[words] = [float(str(v)) for v, number in zip(row, numbers, strict=True) if number]
    return found


def test_a_demonstration_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["demo", "--broker", "rabbit", "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "none of: apache, tansu" in printed.err
    assert run(["demo", "--report", "nowhere/demo.html"]) == 2
    assert "nowhere/demo.html" in capsys.readouterr().err


def test_a_demonstration_that_is_told_to_end_leaves_no_folder_and_no_process(
    tmp_path: Path,
) -> None:
    demo = subprocess.Popen(
        [*(sys.executable, "-m", "imagewire", "demo", "--broker", "tansu", "--json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        deadline = time.monotonic() + 180
        while not list(tmp_path.glob("imagewire-demo-*/data/logs/clickhouse.log")):
            assert demo.poll() is None, demo.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        children = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(signal.SIGTERM)
        out, err = demo.communicate(timeout=120)
    finally:
        demo.kill()
    assert (demo.returncode, out, err) == (130, "", "")
    assert not list(tmp_path.glob("imagewire-demo-*"))
    # The kernel ends those of a killed parent, in its own time.
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


@pytest.mark.parametrize(
    ("ordered", "share", "expected"),
    [
        ([], 0.5, 0.0),
        ([7.0], 0.99, 7.0),
        ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0),
        ([1.0, 2.0, 3.0], 0.5, 2.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([1.0, 2.0], 1.0, 2.0),
    ],
)
def test_a_quantile_is_the_smallest_value_that_enough_do_not_exceed(
    ordered: list[float], share: float, expected: float
) -> None:
    assert quantile(ordered, share) == expected
