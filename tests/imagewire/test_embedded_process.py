"""Children start when they are ready, come back when they die, and never outlive their parent."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from imagewire.embedded.process import ManagedProcess, ProcessError, RestartPolicy

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
QUICK = RestartPolicy(first_delay=0.05, longest_delay=0.1, attempts=2)

PARENT = """
import asyncio, sys
from pathlib import Path
from imagewire.embedded.process import ManagedProcess

async def main():
    child = ManagedProcess("child", ["sleep", "600"], log_directory=Path(sys.argv[1]))
    await child.start()
    print(child.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def until(condition, seconds: float = 60.0) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
async def test_children_die_when_their_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(  # noqa: ASYNC220 - the parent under test
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.kill()
    parent.communicate()
    await until(lambda: not alive(child))


async def test_a_child_that_stands_back_is_nicer_than_its_parent_also_after_a_restart(
    tmp_path: Path,
) -> None:
    child = ManagedProcess("modest", SLEEP, log_directory=tmp_path, restart=QUICK, niceness=7)
    wanted = min(os.nice(0) + 7, 19)

    def stands_back() -> bool:
        return child.pid is not None and os.getpriority(os.PRIO_PROCESS, child.pid) == wanted

    await child.start()
    await until(stands_back)  # it starts as the program in front of it
    child.kill()
    await until(lambda: child.status().restarts == 1 and child.running)
    await until(stands_back)
    await child.stop()


async def test_a_child_is_started_only_when_it_serves(tmp_path: Path) -> None:
    asked = 0

    async def ready() -> bool:
        nonlocal asked
        asked += 1
        return asked == 3

    child = ManagedProcess("slow", SLEEP, log_directory=tmp_path, ready=ready)
    await child.start()
    assert asked == 3
    assert child.running
    assert child.status().state == "running"
    await child.stop()
    assert child.status().state == "stopped"
    assert child.pid is None


async def test_a_child_that_dies_at_the_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    command = [sys.executable, "-c", "raise SystemExit('the port is taken')"]
    child = ManagedProcess("engine", command, log_directory=tmp_path, ready=never)
    with pytest.raises(ProcessError, match=r"(?s)engine ended with exit code 1.*the port is taken"):
        await child.start()
    assert (await child.wait()).state == "failed"


async def test_a_child_that_is_never_ready_is_ended(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    child = ManagedProcess(
        "mute", SLEEP, log_directory=tmp_path, ready=never, start_timeout=0.3, stop_timeout=2
    )
    with pytest.raises(ProcessError, match=r"mute was not ready within 0\.3 s"):
        await child.start()
    assert child.pid is None


async def test_a_missing_program_is_named(tmp_path: Path) -> None:
    child = ManagedProcess("ghost", ["no-such-program"], log_directory=tmp_path)
    with pytest.raises(ProcessError, match="there is no program no-such-program"):
        await child.start()


async def test_a_child_that_dies_is_started_again_and_given_up_in_the_end(tmp_path: Path) -> None:
    child = ManagedProcess("mortal", SLEEP, log_directory=tmp_path, restart=QUICK)
    await child.start()
    for restarts in (1, 2):
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda first=first: child.running and child.pid not in (first, None))
        assert child.status().restarts == restarts
    child.kill()
    ended = await asyncio.wait_for(child.wait(), 60)
    assert ended.state == "failed"
    assert ended.exit_code == -signal.SIGKILL
    await child.stop()


async def test_a_child_that_ignores_the_request_to_end_is_killed_with_its_own_children(
    tmp_path: Path,
) -> None:
    stubborn = (
        "import signal, subprocess, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    )
    child = ManagedProcess(
        "stubborn", [sys.executable, "-c", stubborn], log_directory=tmp_path, stop_timeout=0.3
    )
    await child.start()
    await until(lambda: child.log_tail().strip().isdigit())
    grandchild = int(child.log_tail())
    await child.stop()
    assert child.pid is None
    await until(lambda: not alive(grandchild))


async def test_the_terminals_interrupt_does_not_reach_children(tmp_path: Path) -> None:
    child = ManagedProcess("apart", SLEEP, log_directory=tmp_path)
    await child.start()
    assert child.pid is not None
    assert os.getpgid(child.pid) != os.getpgid(0)
    await child.stop()


async def test_the_log_of_the_run_before_is_kept(tmp_path: Path) -> None:
    child = ManagedProcess("talker", SLEEP, log_directory=tmp_path)
    for _ in range(2):
        await child.start()
        await until(lambda: child.log_tail() == "up")
        await child.stop()
    assert (tmp_path / "talker.log.1").read_text() == "up\n"
