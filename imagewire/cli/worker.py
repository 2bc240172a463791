"""`imagewire worker`: takes images from Kafka until stopped."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from imagewire.cli.log_output import write_log
from imagewire.cli.outcome import UsageError

if TYPE_CHECKING:
    from imagewire.settings import Settings


def worker(
    *,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    processes: int = 1,
) -> int:
    """Take images from Kafka and write what is found, until Ctrl-C.

    Connects to the Kafka, ClickHouse and Qdrant that imagewire.toml or the environment name. Start
    as many as the topics have partitions.

    Args:
        config: Settings file; imagewire.toml in the working folder when not given.
        processes: How many workers to run on this machine, sharing its processors and its GPU.
            Each serves /metrics and /healthz on a port of its own, from http.port on.
    """
    from imagewire.settings import load_settings

    if processes < 1:
        raise UsageError(f"--processes is {processes}; run at least 1")
    settings = load_settings(config).settings
    if processes > 1:
        return run_processes(settings, config, processes)
    restart_with_native_settings()
    run_until_stopped(settings)
    return 0


def run_processes(settings: Settings, config: Path | None, count: int) -> int:
    """Run `count` workers as children of this process; returns the exit status."""
    write_log(settings.log.level)
    from imagewire.worker_processes import WorkerProcesses, run_workers

    command = [sys.executable, "-m", "imagewire", "worker"]
    if config is not None:
        command += ["--config", str(config)]
    return asyncio.run(run_workers(WorkerProcesses(settings, count, command)))


def restart_with_native_settings() -> None:
    """Start this process anew with the malloc environment, which glibc reads only at start."""
    from imagewire.native_environment import native_environment

    missing = native_environment(os.environ)
    if missing:
        os.execve(  # noqa: S606 - the same interpreter with the same arguments
            sys.executable,
            [sys.executable, "-m", "imagewire", *sys.argv[1:]],
            {**os.environ, **missing},
        )


def run_until_stopped(settings: Settings) -> None:
    """Run a worker in this process."""
    write_log(settings.log.level)
    from imagewire.worker_signals import run_worker

    try:
        import uvloop
    except ImportError:  # there is none for Windows
        asyncio.run(run_worker(settings))
    else:
        uvloop.run(run_worker(settings))
