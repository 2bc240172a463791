"""Client commands reach the stack that runs here, unless the user named something else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from imagewire.connection import find_connection
from imagewire.embedded.datadir import DataDirectory, RunRecord, own_start_time
from imagewire.settings import ConfigurationError


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith("IMAGEWIRE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def running(path: Path) -> DataDirectory:
    """A directory as a running stack leaves it."""
    directory = DataDirectory(path)
    directory.acquire()
    directory.publish(
        RunRecord(
            pid=os.getpid(),
            started=own_start_time(),
            broker="tansu",
            broker_address="127.0.0.1:1111",
            clickhouse_host="127.0.0.1",
            clickhouse_port=2222,
            qdrant_host="127.0.0.1",
            qdrant_port=3333,
            writer_password="writer hush",
            analyst_password="analyst hush",
            qdrant_api_key="qdrant hush",
        )
    )
    return directory


def test_without_a_stack_the_settings_count() -> None:
    connection = find_connection()
    assert connection.stack is None
    assert connection.settings.kafka.bootstrap_servers == "127.0.0.1:9092"


def test_a_stack_that_runs_in_the_usual_place_is_found() -> None:
    directory = running(Path("imagewire-data"))
    connection = find_connection()
    assert connection.stack is not None
    settings = connection.settings
    assert settings.kafka.bootstrap_servers == "127.0.0.1:1111"
    assert (settings.clickhouse.port, settings.clickhouse.username) == (2222, "analyst")
    assert settings.clickhouse.password.get_secret_value() == "analyst hush"
    assert settings.qdrant.grpc_port == 3333
    assert settings.qdrant.api_key is not None
    assert settings.qdrant.api_key.get_secret_value() == "qdrant hush"
    assert "hush" not in repr(connection)
    directory.release()
    assert find_connection().stack is None


def test_other_settings_hold_for_the_stack_too() -> None:
    Path("imagewire.toml").write_text("[operators.embedding]\nmodel = 'mine'\n")
    directory = running(Path("imagewire-data"))
    connection = find_connection()
    assert connection.stack is not None
    assert connection.settings.operators == {"embedding": {"model": "mine"}}
    directory.release()


@pytest.mark.parametrize("how", ["file", "variable"])
def test_whoever_names_an_address_gets_that_one(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = running(Path("imagewire-data"))
    if how == "file":
        Path("imagewire.toml").write_text('[kafka]\nbootstrap_servers = "kafka:9092"\n')
    else:
        monkeypatch.setenv("IMAGEWIRE_KAFKA__BOOTSTRAP_SERVERS", "kafka:9092")
    connection = find_connection()
    assert connection.stack is None
    assert connection.settings.kafka.bootstrap_servers == "kafka:9092"
    directory.release()


def test_a_named_directory_wins_over_named_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEWIRE_KAFKA__BOOTSTRAP_SERVERS", "kafka:9092")
    directory = running(Path("elsewhere"))
    connection = find_connection(Path("elsewhere"))
    assert connection.settings.kafka.bootstrap_servers == "127.0.0.1:1111"
    directory.release()


def test_a_named_directory_must_have_a_stack() -> None:
    with pytest.raises(ConfigurationError, match="imagewire up --data nowhere"):
        find_connection(Path("nowhere"))


def test_what_a_dead_stack_left_behind_is_not_believed() -> None:
    directory = running(Path("imagewire-data"))
    text = (directory.path / "run.json").read_text()
    directory.release()
    record = json.loads(text) | {"pid": 4_194_304}  # beyond the largest process id of Linux
    (directory.path / "run.json").write_text(json.dumps(record))
    assert find_connection().stack is None
