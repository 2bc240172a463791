"""A disk that fills up is named: before, once, and beside the death of whatever it kills."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from pathlib import Path

import pytest

from imagewire.embedded.disk_space import DiskWatch, full_disk
from imagewire.embedded.process import ManagedProcess, ProcessError, RestartPolicy

MEBIBYTE = 1 << 20


class Disk:
    """Says how much is free in place of the file system, which no test can fill."""

    free = 100 * 1024 * MEBIBYTE

    def usage(self, directory: Path) -> object:
        return shutil._ntuple_diskusage(self.free, 0, self.free)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr("imagewire.embedded.disk_space.shutil.disk_usage", disk.usage)
    return disk


def test_scarce_room_is_told_once_an_episode(disk: Disk, tmp_path: Path) -> None:
    told: list[str] = []
    watch = DiskWatch(tmp_path, told.append)
    for free in (5000, 1000, 990, 1030, 1000, 5000, 900, 60, 50, 70, 60, 3):
        disk.free = free * MEBIBYTE
        watch.look()
    assert told == [
        f"the disk of {tmp_path} has only 1000 MiB free; make room, or the broker and the stores "
        "will stop",
        f"the disk of {tmp_path} has only 900 MiB free; make room, or the broker and the stores "
        "will stop",
        f"the disk of {tmp_path} is full: 60 MiB free; make room",
    ]


def test_a_directory_that_is_not_there_yet_is_no_reason_to_warn(tmp_path: Path) -> None:
    told: list[str] = []
    DiskWatch(tmp_path / "nowhere", told.append).look()
    assert told == []
    assert full_disk(tmp_path / "nowhere") == ""


async def test_a_child_that_dies_on_a_full_disk_is_reported_with_it(
    disk: Disk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk.free = 2 * MEBIBYTE
    bus_error = "import os, signal; os.kill(os.getpid(), signal.SIGBUS)"

    async def never() -> bool:
        return False

    dying = ManagedProcess(
        "qdrant", [sys.executable, "-c", bus_error], log_directory=tmp_path, ready=never
    )
    full = f"the disk of {tmp_path} is full: 2 MiB free; make room"
    with pytest.raises(ProcessError) as caught:
        await dying.start()
    assert f"qdrant ended with signal SIGBUS ({full}) before it was ready" in str(caught.value)
    later = ManagedProcess("qdrant", [sys.executable, "-c", bus_error], log_directory=tmp_path)
    with caplog.at_level(logging.ERROR):
        await later.start()
        await later.wait()
    assert full in caplog.text


async def test_a_child_that_a_full_disk_kills_is_tried_again_until_there_is_room(
    disk: Disk, tmp_path: Path
) -> None:
    flag = tmp_path / "there-is-room"
    command = f"import os, sys, time; os.path.exists({str(flag)!r}) or sys.exit(1); time.sleep(60)"
    policy = RestartPolicy(first_delay=0.01, longest_delay=0.02, attempts=2)
    child = ManagedProcess(
        "engine", [sys.executable, "-c", command], log_directory=tmp_path, restart=policy
    )
    disk.free = 2 * MEBIBYTE
    await child.start()
    try:
        async with asyncio.timeout(60):
            while child.status().restarts < 5:  # noqa: ASYNC110 - a process has no event
                await asyncio.sleep(0.01)
        assert child.status().state != "failed"
        flag.touch()
        disk.free = 9000 * MEBIBYTE
        async with asyncio.timeout(60):
            while not await lives(child):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        await child.stop()


async def test_a_child_whose_log_can_no_longer_be_written_is_given_up_with_the_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a disk that turned read-only, which a test cannot have: a folder is in the way."""
    policy = RestartPolicy(first_delay=0.01, longest_delay=0.02, attempts=2)
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    child = ManagedProcess("engine", sleep, log_directory=tmp_path, restart=policy)
    await child.start()
    child.log_path.unlink()
    child.log_path.mkdir()
    with caplog.at_level(logging.WARNING):
        child.kill()
        async with asyncio.timeout(60):
            assert (await child.wait()).state == "failed"
    await child.stop()
    assert f"engine cannot be started: its log {child.log_path} cannot be written" in caplog.text


async def lives(child: ManagedProcess, seconds: float = 1.0) -> bool:
    """Whether it is the same process for so long."""
    pid = child.pid
    await asyncio.sleep(seconds)
    return pid is not None and child.pid == pid
