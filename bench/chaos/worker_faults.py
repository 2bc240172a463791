"""Workers that are killed, added, taken away and frozen while images keep coming."""

from __future__ import annotations

import asyncio
import os
import random
import signal

from bench.chaos.producer import Load
from bench.chaos.report import Row
from bench.chaos.stage import SESSION_TIMEOUT, Stage

_READY_WITHIN = 300.0


async def killed(stage: Stage, kills: int, seed: int = 1) -> Row:
    """kill -9 of the worker at random moments; it is started again at once.

    Most kills come while it works: when it has finished some images and others are at every point
    of their way. One in five comes at any moment of its start, when it has joined the group or is
    about to.
    """
    moments = random.Random(seed)
    worker = stage.workers[0]
    finished_by_killed = 0.0

    async def act(load: Load) -> None:
        nonlocal finished_by_killed
        for number in range(kills):
            if moments.random() < 0.2:
                await asyncio.sleep(moments.uniform(0.5, 12.0))
            else:
                await _running(stage)
                wanted = moments.randint(1, 150)
                async with asyncio.timeout(_READY_WITHIN):
                    while (finished := await stage.finished_frames()) < wanted:  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
                finished_by_killed += finished
            stage.report(f"kill -9 of the worker, {number + 1} of {kills}")
            worker.kill()
        await _running(stage)
        await stage.progress(load, 30)

    row = await stage.under_load(f"worker killed with -9, {kills} times", act)
    row.note = (
        f"restarts {worker.status().restarts}; workers that were killed had finished "
        f"{finished_by_killed:.0f} images"
    )
    return row


async def _running(stage: Stage) -> None:
    """Wait until every worker that was not stopped takes images."""
    async with asyncio.timeout(_READY_WITHIN):
        while not all(worker.running for worker in stage.workers):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def scaled(stage: Stage) -> Row:
    """2, then 4, then 1 worker; of the four one is killed and one frozen beyond its session."""
    while len(stage.workers) < 2:
        await stage.add_worker()

    async def act(load: Load) -> None:
        await stage.progress(load, 30)
        while len(stage.workers) < 4:
            await stage.add_worker()
        await stage.progress(load, 60)
        stage.report("kill -9 of worker 2")
        stage.workers[1].kill()
        await _freeze(stage, 2, SESSION_TIMEOUT * 2.5)
        await stage.progress(load, 60)
        await _running(stage)
        stage.report("stopping three of four workers")
        for worker in stage.workers[1:]:
            await worker.stop()
        del stage.workers[1:]
        await stage.progress(load, 60)

    row = await stage.under_load("2 to 4 to 1 workers: one killed, one frozen", act)
    row.note = f"frozen for {SESSION_TIMEOUT * 2.5:g} s, session {SESSION_TIMEOUT:g} s"
    return row


async def _freeze(stage: Stage, index: int, seconds: float) -> None:
    """SIGSTOP, and SIGCONT when its partitions have long gone to another."""
    pid = stage.workers[index].pid
    assert pid is not None
    stage.report(f"worker {index + 1} frozen for {seconds:g} s")
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)
