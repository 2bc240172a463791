"""Commands explain themselves, say what went wrong by words and exit code, and spare the terminal.

What needs a running stack is in `test_cli_on_a_stack`.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imagewire.cli import COMMANDS, run
from imagewire.cli.terminal import printable
from imagewire.doctor import _policy, _terms, _webhooks
from imagewire.embedded.broker_choice import fetches_jars
from imagewire.embedded.ports import free_port
from imagewire.settings import load_settings

IMAGEWIRE = [sys.executable, "-m", "imagewire"]


@pytest.fixture(autouse=True)
def nothing_runs_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings, and addresses at which nobody answers."""
    for name in list(os.environ):
        if name.upper().startswith("IMAGEWIRE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("IMAGEWIRE_KAFKA__BOOTSTRAP_SERVERS", f"127.0.0.1:{free_port()}")
    monkeypatch.setenv("IMAGEWIRE_CLICKHOUSE__PORT", str(free_port()))
    monkeypatch.setenv("IMAGEWIRE_QDRANT__GRPC_PORT", str(free_port()))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*IMAGEWIRE, *arguments], capture_output=True, text=True, timeout=180, check=False
    )


# help


def test_help_says_of_each_command_in_one_line_what_it_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["--help"]) == 0
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines()]
    for name in COMMANDS:
        (line,) = [line for line in lines if line.split(" ")[0] == name]
        assert len(line) > len(name) + 20, line


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) < 50
    assert "Args:" not in printed
    assert "--no-" not in printed
    boxes = [line.strip("│ ") for line in printed.splitlines() if line.startswith("│")]
    options = [line for line in boxes if line.startswith("--") and "--help" not in line]
    for line in options:
        # An option's name, perhaps its kind, then words that begin with a capital letter.
        assert any(word[:1].isupper() for word in line.split() if not word.isupper()), line


def test_help_and_settings_need_neither_torch_nor_the_clients_of_stores() -> None:
    code = (
        "import sys; from imagewire.cli import run; run(['--help']); run(['config', '--json']);"
        "sys.exit(bool(sys.modules.keys() & {'torch', 'qdrant_client', 'grpc', 'chdb'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == version("imagewire")


# mistakes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serch"], 'Did you mean "search"?'),
        (["sql"], "requires an argument"),
        (["sql", "SELECT 1", "--format", "xml"], '"table", "json", "csv", "arrow"'),
        (["watch", "verdict"], '"verdicts", "findings", "review", "failed"'),
        (["publish"], "name at least one file, folder, glob or URL"),
        (["publish", "a.jpg", "--lane", "fast"], '"live", "bulk"'),
        (["search"], "name either a photo or --id"),
        (["search", "a.jpg", "--id", "b"], "name either a photo or --id"),
        (["search", "--id", "b", "--limit", "0"], "--limit is 0"),
        (["up", "--workers", "0"], "--workers is 0"),
        (["up", "--files", "nowhere"], "--files nowhere is no folder"),
        (["up", "--broker-port", "many"], "many"),
        (["sql", "SELECT 1", "--data", "nowhere"], "imagewire up --data nowhere"),
        (["worker", "--config", "nowhere.toml"], "nowhere.toml cannot be read"),
    ],
)
def test_a_command_that_makes_no_sense_is_explained_and_exits_with_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in " ".join(printed.err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["publish", "nowhere.jpg"], "there is no file or folder 'nowhere.jpg'"),
        (["publish", "*.jpg"], "'*.jpg' matches no file"),
        (["publish", "."], "the folder . holds no image files"),
    ],
)
def test_what_cannot_be_done_is_explained_and_exits_with_1(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in printed.err


@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        (["--broker", "redpanda"], "", "none of: apache, tansu, auto, HOST:PORT"),
        (["--broker", "localhost:99999"], "", "99999 is no port"),
        (["--http-port", "-1"], "", "--http-port -1 is no port"),
        (["--broker-port", "21111", "--qdrant-port", "21111"], "", "--broker-port and --qdrant-"),
        ([], '[policy]\nfile = "/nowhere/p.toml"', "/nowhere/p.toml: the policy cannot be read"),
        ([], '[models]\ncatalogs = ["/nowhere/m.toml"]', "'/nowhere/m.toml' cannot be read"),
        ([], "[operators.objekts]\nconfidence = 0.5", "did you mean 'objects'?"),
    ],
)
def test_up_refuses_what_cannot_work_before_it_makes_or_starts_anything(
    arguments: list[str],
    settings: str,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "imagewire.toml").write_text(settings)
    assert run(["up", "--data", "d", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error ")
    assert words in printed.err
    assert "starting" not in printed.err
    assert not (tmp_path / "d").exists()


def test_only_a_kafka_that_would_fetch_its_jars_is_said_to_take_longer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    for name, text in {"mvn": "", "java": "echo 'openjdk version \"17.0.1\"'"}.items():
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    for name in ("JAVA_HOME", "KAFKA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert fetches_jars(None)
    assert fetches_jars("apache")
    assert not fetches_jars("tansu")
    assert not fetches_jars("localhost:9092")
    (tmp_path / "bin" / "mvn").unlink()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert not fetches_jars("apache")


@pytest.mark.parametrize("command", ["publish", "watch", "sql", "search", "replay"])
def test_what_cannot_be_reached_is_named_and_exits_with_3(
    command: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    arguments = {
        "publish": ["a.jpg"],
        "watch": ["failed"],
        "sql": ["SELECT 1"],
        "search": ["--id", "a"],
        "replay": [],
    }[command]
    address = os.environ[
        {
            "publish": "IMAGEWIRE_KAFKA__BOOTSTRAP_SERVERS",
            "watch": "IMAGEWIRE_KAFKA__BOOTSTRAP_SERVERS",
            "sql": "IMAGEWIRE_CLICKHOUSE__PORT",
            "search": "IMAGEWIRE_QDRANT__GRPC_PORT",
            "replay": "IMAGEWIRE_KAFKA__BOOTSTRAP_SERVERS",
        }[command]
    ]
    with pytest.MonkeyPatch.context() as patch:
        # Without pytest's, what a library logs and nobody handles is written, as in a process.
        patch.setattr(logging.getLogger(), "handlers", [])
        assert run([command, *arguments]) == 3
        gc.collect()  # connections that were left open say so when they go
    printed = capfd.readouterr()
    assert printed.out == ""
    # One message and none of the libraries' own.
    assert printed.err.startswith("error ")
    assert f"nothing answers at {address if ':' in address else f'127.0.0.1:{address}'}" in (
        printed.err
    )
    assert len(printed.err.splitlines()) == 1


@pytest.mark.parametrize("module", ["cyclopts", "rich.console", "imagewire.cli.up", "pydantic"])
def test_an_interrupt_while_modules_load_ends_a_command_without_a_traceback(module: str) -> None:
    program = f"""
import signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from imagewire.cli import main  # as the console script does
main(["config"])
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=180, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


# what is written where


def test_characters_that_steer_a_terminal_are_shown_by_their_codes() -> None:
    assert printable("a\x1b[31mb\x07\x9bc\x7f\r\n") == r"a\x1b[31mb\x07\x9bc\x7f\x0d\x0a"
    assert printable("gpj.\u202eexe") == r"gpj.\u202eexe"
    assert printable("\udcff.jpg") == r"\udcff.jpg"
    assert printable("Größe 你好 ♥") == "Größe 你好 ♥"


def test_a_name_in_an_error_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["publish", "\x1b]0;owned\x07[red].jpg"]) == 1
    printed = capsys.readouterr().err
    assert r"\x1b]0;owned\x07[red].jpg" in printed
    assert "\x1b" not in printed


@pytest.mark.parametrize("arguments", [["config"], ["config", "--json"], ["config", "--reference"]])
def test_a_reader_that_has_enough_is_no_error(arguments: list[str]) -> None:
    process = subprocess.Popen(
        [*IMAGEWIRE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read().decode()
    assert process.wait(180) == 0
    assert "Traceback" not in said
    assert "BrokenPipe" not in said


def test_arrow_is_not_written_to_a_terminal() -> None:
    ours, theirs = pty.openpty()
    try:
        result = subprocess.run(
            [*IMAGEWIRE, "sql", "SELECT 1", "--format", "arrow"],
            stdout=theirs,
            stderr=subprocess.PIPE,
            text=True,
            timeout=180,
            check=False,
        )
    finally:
        os.close(theirs)
        os.close(ours)
    assert result.returncode == 2
    assert "send it to a file" in result.stderr


# doctor


def test_the_doctor_says_what_to_mend_and_takes_absent_servers_lightly(
    capfd: pytest.CaptureFixture[str],
) -> None:
    code = run(["doctor", "--json"])
    printed = capfd.readouterr()
    assert code == 0, printed.out
    assert printed.err == ""
    checks = {check["name"]: check for check in map(json.loads, printed.out.splitlines())}
    assert checks["python"]["outcome"] == "ok"
    assert checks["operators"]["found"].split(", ") >= ["fingerprint"]
    weights = [check for name, check in checks.items() if name.startswith("weights ")]
    assert len(weights) >= 5
    assert all(len(check["found"].removeprefix("SHA-256 ")) == 64 for check in weights)
    for name in ("Kafka", "ClickHouse", "Qdrant"):
        assert checks[name]["outcome"] == "warning"
        assert checks[name]["found"].startswith("no answer at 127.0.0.1:")
        assert "imagewire up" in checks[name]["mend"]


def test_the_doctor_names_what_must_be_mended_and_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "policy.toml").write_text('[[rules]]\nname = "x"\nwhen = "1 +"\naction = "block"\n')
    (tmp_path / "imagewire.toml").write_text(
        '[policy]\nfile = "policy.toml"\n[operators.objects]\nmodel = "none-such"\n'
        '[models]\ndevice = "cuda:77"\n'
    )
    assert run(["doctor"]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("mend ") >= 3
    assert "policy.toml" in printed
    assert "none-such" in printed
    assert "cuda:77" in printed


def test_lists_calibrations_and_secrets_that_are_missing_are_told_before_anything_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_SECRET", raising=False)
    hook = 'name = "trust"\nurl = "https://example.org"\nsecret_variable = "NO_SUCH_SECRET"\n'
    for text, named in (
        ('[terms.lists.scams]\nfile = "nowhere.csv"\n', "nowhere.csv"),
        ('[policy]\ncalibrations = ["nowhere.json"]\n', "nowhere.json"),
        (f"[[webhooks]]\n{hook}", "NO_SUCH_SECRET"),
    ):
        (tmp_path / "imagewire.toml").write_text(text)
        assert run(["up", "--data", str(tmp_path / "data"), "--config", "imagewire.toml"]) == 2
        assert named in capsys.readouterr().err
        assert not (tmp_path / "data").exists()
        mistakes = [
            check
            for check in (_terms, _webhooks, _policy)
            if check(load_settings(tmp_path / "imagewire.toml").settings).outcome == "error"
        ]
        assert len(mistakes) == 1


def test_the_doctor_looks_at_settings_that_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "imagewire.toml").write_text("[kafka]\nbootstrap = 3\n")
    assert run(["doctor", "--json"]) == 1
    (check,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert check["name"] == "settings"
    assert "there is no such key" in check["found"]


# a worker


def test_a_worker_refuses_what_cannot_work_before_it_takes_anything(tmp_path: Path) -> None:
    (tmp_path / "imagewire.toml").write_text('[operators.objects]\nmodel = "none-such"\n')
    result = ended("worker")
    assert result.returncode == 2
    assert "none-such" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_worker_waits_for_its_broker_and_stops_at_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """In `test_secrets` one does at SIGTERM."""
    port = free_port()
    monkeypatch.setenv("IMAGEWIRE_HTTP__PORT", str(port))
    for name in ("TEXT", "OBJECTS", "SCORES", "EMBEDDING"):
        monkeypatch.setenv(f"IMAGEWIRE_OPERATORS__{name}__ENABLED", "false")
    process = subprocess.Popen([*IMAGEWIRE, "worker"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said: list[str] = []
    for line in process.stderr:
        said.append(line)
        if "waiting for kafka" in line:
            break
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    said += process.stderr.readlines()
    assert process.wait(60) == 0, said
    assert time.monotonic() - began < 40
    assert not any("Traceback" in line for line in said)
