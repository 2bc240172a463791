"""Several workers under one parent: they live as long as it does, and stop when it is told to."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from imagewire.settings import ConfigurationError, Settings
from imagewire.worker_processes import Patience, WorkerProcesses, environment_of

# However long a start takes here: no worker counts as recovered.
QUICK = Patience(first_delay=0.05, longest_delay=0.2, healthy_after=3600, failures=3)

WORKER = """
import os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
port = os.environ["IMAGEWIRE_HTTP__PORT"]
def finish(*_):
    (folder / f"finished-{port}").touch()
    os._exit(0)
signal.signal(signal.SIGTERM, finish)
with (folder / f"born-{port}").open("a") as file:
    file.write(f"{os.getpid()}\\n")
while True:
    time.sleep(0.02)
"""


def born(folder: Path, port: int) -> list[int]:
    """The process ids that a worker's lives have written; a file may be there before its lines."""
    file = folder / f"born-{port}"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [int(line) for line in lines if line.endswith("\n")]


def lives(pid: int) -> bool:
    """Whether it runs; one that has ended may wait for whoever inherited it to ask after it."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until(condition: Callable[[], object], seconds: float = 120) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - files and processes tell nobody
            await asyncio.sleep(0.02)


def when_both_live(last_words: str) -> str:
    """The script of a worker; the second one ends so, after the first one has said who it is.

    It listens to signals before it does. That its file is there is not enough: the signal to stop
    could come before the line is in it.
    """
    return WORKER.replace(
        "while True:",
        "first = folder / 'born-9300'\n"
        "while port == '9301':\n"
        "    if first.exists() and first.read_text().endswith('\\n'):\n"
        f"        {last_words}\n"
        "    time.sleep(0.02)\n"
        "while True:",
    )


def workers(folder: Path, script: str = WORKER, count: int = 2) -> WorkerProcesses:
    command = [sys.executable, "-c", script, str(folder)]
    return WorkerProcesses(Settings(http={"port": 9300}), count, command, QUICK)


def test_each_worker_has_its_own_port_and_its_share_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("imagewire.worker_processes.available_processors", lambda: 16)
    settings = Settings(models={"memory_share": 0.8})
    assert [dict(environment_of(settings, number, 4)) for number in (0, 3)] == [
        {
            "IMAGEWIRE_HTTP__PORT": port,
            "IMAGEWIRE_MODELS__THREADS": "4",
            "IMAGEWIRE_DECODE__THREADS": "4",
            "IMAGEWIRE_MODELS__MEMORY_SHARE": "0.200000",
        }
        for port in ("9108", "9111")
    ]


def test_what_the_settings_say_is_not_shared_out() -> None:
    settings = Settings(models={"threads": 3}, decode={"threads": 5}, http={"port": 0})
    assert environment_of(settings, 1, 2) == {}


def test_ports_beyond_the_last_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="choose a lower one"):
        WorkerProcesses(Settings(http={"port": 65_535}), 2, ["true"])


async def test_told_to_stop_every_worker_finishes_and_all_is_well(tmp_path: Path) -> None:
    crew = workers(tmp_path)
    running = asyncio.create_task(crew.run())
    await until(lambda: born(tmp_path, 9300) and born(tmp_path, 9301))
    crew.stop()
    assert await asyncio.wait_for(running, 120) == 0
    assert (tmp_path / "finished-9300").exists()
    assert (tmp_path / "finished-9301").exists()


async def test_a_worker_that_is_killed_is_started_again_and_the_other_goes_on(
    tmp_path: Path,
) -> None:
    crew = workers(tmp_path)
    running = asyncio.create_task(crew.run())
    await until(lambda: born(tmp_path, 9300) and born(tmp_path, 9301))
    os.kill(born(tmp_path, 9300)[0], signal.SIGKILL)
    await until(lambda: len(born(tmp_path, 9300)) == 2)
    assert len(born(tmp_path, 9301)) == 1
    crew.stop()
    assert await asyncio.wait_for(running, 120) == 0


async def test_wrong_settings_stop_all_at_once(tmp_path: Path) -> None:
    crew = workers(tmp_path, when_both_live("sys.exit(2)"))
    assert await asyncio.wait_for(crew.run(), 120) == 2
    assert len(born(tmp_path, 9301)) == 1
    assert not lives(born(tmp_path, 9300)[0])


async def test_a_worker_that_keeps_dying_ends_them_all(tmp_path: Path) -> None:
    crew = workers(tmp_path, when_both_live("sys.exit(7)"))
    assert await asyncio.wait_for(crew.run(), 120) == 7
    assert len(born(tmp_path, 9301)) == 3
    assert (tmp_path / "finished-9300").exists()


async def test_a_second_signal_ends_them_at_once(tmp_path: Path) -> None:
    script = WORKER.replace("    os._exit(0)", "    return")
    crew = workers(tmp_path, script)
    running = asyncio.create_task(crew.run())
    await until(lambda: born(tmp_path, 9300) and born(tmp_path, 9301))
    crew.stop()
    await asyncio.sleep(0.1)
    assert not running.done()
    crew.stop()
    await asyncio.wait_for(running, 120)
    assert not any(lives(pid) for port in (9300, 9301) for pid in born(tmp_path, port))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal at a parent's death")
async def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import asyncio, sys\n"
        "from imagewire.settings import Settings\n"
        "from imagewire.worker_processes import WorkerProcesses\n"
        "crew = WorkerProcesses(Settings(http={'port': 9300}), 2, sys.argv[1:])\n"
        "asyncio.run(crew.run())",
        *(sys.executable, "-c", WORKER, str(tmp_path)),
    )
    try:
        await until(lambda: born(tmp_path, 9300) and born(tmp_path, 9301))
    finally:
        parent.kill()
        await parent.wait()
    pids = born(tmp_path, 9300) + born(tmp_path, 9301)
    await until(lambda: not any(lives(pid) for pid in pids))
