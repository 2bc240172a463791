"""A data directory has one holder, keeps its secrets and ports, and tells where its stack runs."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from imagewire.embedded.datadir import (
    DataDirectory,
    DataDirectoryError,
    DirectoryHeldError,
    RunRecord,
    find_running,
    own_start_time,
)
from imagewire.embedded.ports import is_free

HOLD = """
import sys, time
from pathlib import Path
from imagewire.embedded.datadir import DataDirectory
directory = DataDirectory(Path(sys.argv[1]))
directory.acquire()
print("held", flush=True)
time.sleep(60)
"""


def record(pid: int, started: float) -> RunRecord:
    return RunRecord(
        pid=pid,
        started=started,
        broker="apache",
        broker_address="127.0.0.1:9092",
        clickhouse_host="127.0.0.1",
        clickhouse_port=8123,
        qdrant_host="127.0.0.1",
        qdrant_port=6334,
        writer_password="not-to-be-shown",
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_second_holder_is_told_which_process_holds_the_directory(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "data")], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        second = DataDirectory(tmp_path / "data")
        with pytest.raises(DirectoryHeldError, match=f"process {holder.pid} since 20") as refusal:
            second.acquire()
        assert refusal.value.pid == holder.pid

        holder.send_signal(signal.SIGKILL)
        holder.wait()
        second.acquire()  # the lock died with its holder
        second.release()


def test_directory_and_secrets_are_for_the_owner_only(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    directory = DataDirectory(tmp_path / "data")
    directory.acquire()
    assert directory.identity.writer_password != directory.identity.analyst_password
    directory.publish(record(os.getpid(), own_start_time()))
    assert mode(tmp_path / "data") == 0o700
    assert mode(tmp_path / "data" / "identity.json") == 0o600
    assert mode(tmp_path / "data" / "run.json") == 0o600
    directory.release()


def test_secrets_and_ports_outlive_a_restart(tmp_path: Path) -> None:
    first = DataDirectory(tmp_path)
    first.acquire()
    key, port = first.identity.qdrant_api_key, first.port("broker")
    first.release()
    second = DataDirectory(tmp_path)
    second.acquire()
    assert second.identity.qdrant_api_key == key
    assert second.port("broker") == port
    # 0 is any free one, and is then the one that is kept.
    other = second.port("broker", 0)
    assert other != port and is_free(other)
    assert second.port("broker") == other
    second.release()


def test_a_port_that_was_taken_meanwhile_is_replaced_unless_it_was_asked_for(
    tmp_path: Path,
) -> None:
    directory = DataDirectory(tmp_path)
    directory.acquire()
    with socket.socket() as other:
        port = directory.port("broker")
        other.bind(("127.0.0.1", port))
        other.listen()
        assert directory.port("broker") != port
        with pytest.raises(DataDirectoryError, match=f"port {port} for broker is taken"):
            directory.port("broker", port)
    directory.release()


def test_a_running_stack_is_found_and_a_stopped_one_is_not(tmp_path: Path) -> None:
    assert find_running(tmp_path) is None
    directory = DataDirectory(tmp_path)
    directory.acquire()
    mine = record(os.getpid(), own_start_time())
    directory.publish(mine)
    assert find_running(tmp_path) == mine
    directory.release()
    assert find_running(tmp_path) is None


def test_a_record_that_a_crash_left_behind_is_ignored(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    crashed = DataDirectory(tmp_path)
    crashed.acquire()
    crashed.publish(record(gone.pid, own_start_time()))
    assert find_running(tmp_path) is None
    # Also when the number meanwhile belongs to another process.
    crashed.publish(record(os.getpid(), psutil.Process().create_time() - 3600))
    assert find_running(tmp_path) is None
    crashed.release()


def test_a_damaged_record_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"pid": ')
    with pytest.raises(DataDirectoryError, match=r"run\.json cannot be read.*remove that file"):
        find_running(tmp_path)


def test_a_record_does_not_show_its_secrets() -> None:
    assert "not-to-be-shown" not in repr(record(1, 0.0))


def test_a_directory_that_cannot_be_used_is_named_and_let_go(tmp_path: Path) -> None:
    (tmp_path / "qdrant").write_text("not a folder")
    with pytest.raises(DataDirectoryError, match="qdrant"):
        DataDirectory(tmp_path).acquire()
    (tmp_path / "qdrant").unlink()
    directory = DataDirectory(tmp_path)
    directory.acquire()
    directory.release()
