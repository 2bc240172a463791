"""Client commands reach the stack that runs here, unless the user named something else."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from imagewire.connection import Connection, find_connection
from imagewire.embedded.datadir import DataDirectory, RunRecord, own_start_time
from imagewire.embedded.ports import free_port
from imagewire.reachability import UnreachableError, reaching
from imagewire.settings import ConfigurationError
from sinks.sink import TransientSinkError


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


def test_where_no_stack_runs_the_way_to_one_is_told() -> None:
    # At the default address somebody may listen; nobody does at this one.
    settings = find_connection().settings
    port = free_port()
    clickhouse = settings.clickhouse.model_copy(update={"port": port})
    assumed = Connection(settings.model_copy(update={"clickhouse": clickhouse}), None, assumed=True)
    tried = False
    with pytest.raises(UnreachableError) as caught, reaching(assumed, "ClickHouse"):
        tried = True
    assert not tried
    assert str(caught.value) == (
        f"nothing answers at 127.0.0.1:{port} (ClickHouse), and no stack runs on imagewire-data in "
        "this folder: `imagewire up` starts one, and `--data DIR` names the directory of one that "
        "runs elsewhere"
    )


def test_an_address_is_assumed_only_where_nothing_names_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert find_connection().assumed
    directory = running(Path("imagewire-data"))
    assert not find_connection().assumed
    directory.release()
    monkeypatch.setenv("IMAGEWIRE_CLICKHOUSE__PORT", "4444")
    assert not find_connection().assumed


def test_an_error_of_a_server_that_answers_is_left_as_it_is() -> None:
    settings = find_connection().settings
    with socket.create_server(("127.0.0.1", 0)) as server:
        clickhouse = settings.clickhouse.model_copy(update={"port": server.getsockname()[1]})
        connection = Connection(settings.model_copy(update={"clickhouse": clickhouse}), None)
        with (
            pytest.raises(TransientSinkError, match="too many queries"),
            reaching(connection, "ClickHouse"),
        ):
            raise TransientSinkError("too many queries")


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
