"""`imagewire worker`: takes images from Kafka until stopped."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from imagewire.cli.log_output import write_log

if TYPE_CHECKING:
    from imagewire.settings import Settings


def worker(*, config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None) -> None:
    """Take images from Kafka and write what is found, until Ctrl-C.

    Connects to the Kafka, ClickHouse and Qdrant that imagewire.toml or the environment name. Start
    as many as the topics have partitions.

    Args:
        config: Settings file; imagewire.toml in the working folder when not given.
    """
    from imagewire.settings import load_settings

    settings = load_settings(config).settings
    restart_with_malloc_settings()
    run_until_stopped(settings)


def restart_with_malloc_settings() -> None:
    """Start this process anew with the malloc environment, which glibc reads only at start."""
    from imagewire.malloc import malloc_environment

    missing = malloc_environment(os.environ)
    if missing:
        os.execve(  # noqa: S606 - the same interpreter with the same arguments
            sys.executable,
            [sys.executable, "-m", "imagewire", *sys.argv[1:]],
            {**os.environ, **missing},
        )


def run_until_stopped(settings: Settings) -> None:
    """Run a worker in this process."""
    write_log(settings.log.level)
    from imagewire.worker import run_worker

    try:
        import uvloop
    except ImportError:  # there is none for Windows
        asyncio.run(run_worker(settings))
    else:
        uvloop.run(run_worker(settings))
