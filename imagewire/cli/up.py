"""`imagewire up`: everything on this machine, left running until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from imagewire.embedded.stack import Stack


def up(
    *,
    data: Annotated[Path, Parameter(name=["--data", "-d"])] = Path("imagewire-data"),
    broker: str | None = None,
    files: tuple[Path, ...] = (),
    workers: int = 1,
    broker_port: int | None = None,
    clickhouse_port: int | None = None,
    qdrant_port: int | None = None,
    http_port: int | None = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
) -> int:
    """Start a broker, ClickHouse's and Qdrant's engines and a worker, until Ctrl-C.

    Everything listens on 127.0.0.1 only. Data stays in the data directory, so that the next start
    goes on where this one ended.

    Parameters
    ----------
    data: the directory that keeps everything.
    broker: apache (Java 17 and Maven, durable), tansu (memory only), or HOST:PORT of your own;
        apache where it can run, else tansu, when not given.
    files: folders from which file: references may be read; give it once for each.
    workers: how many workers to start.
    broker_port: port of Kafka; kept from the last start, else a free one.
    clickhouse_port: port of ClickHouse's HTTP interface.
    qdrant_port: port of Qdrant's gRPC interface.
    http_port: port of the first worker's /metrics and /healthz.
    config: settings file for the workers.
    """
    from imagewire.cli.outcome import CommandError
    from imagewire.embedded.stack import StackPorts
    from imagewire.settings import CONFIG_VARIABLE, load_settings

    if workers < 1:
        raise CommandError(f"--workers is {workers}; start at least 1")
    for folder in files:
        if not folder.is_dir():
            raise CommandError(f"--files {folder} is no folder")
    loaded = load_settings(config)  # wrong settings are told now, not in a worker's log
    if loaded.file is not None:
        os.environ[CONFIG_VARIABLE] = str(loaded.file.resolve())
    logging.basicConfig(level="WARNING", format="%(levelname)s %(message)s", stream=sys.stderr)
    ports = StackPorts(broker_port, clickhouse_port, qdrant_port, http_port)
    return asyncio.run(_run(data, broker, files, workers, ports))


async def _run(
    data: Path, broker: str | None, files: tuple[Path, ...], workers: int, ports: object
) -> int:
    from imagewire.cli.outcome import EXIT_FAILED
    from imagewire.cli.terminal import error_console, print_error, print_note
    from imagewire.embedded.stack import Stack, StackPorts

    assert isinstance(ports, StackPorts)
    stop = asyncio.Event()
    _stop_on_signals(stop)
    with error_console.status("starting") as status:
        stack = Stack(data, broker, ports=ports, file_roots=files, report=status.update)

        async def start() -> None:
            await stack.start()
            for _ in range(workers):
                await stack.start_worker()

        try:
            if not await _before(stop, start()):
                await stack.stop()
                return 0
        except BaseException:
            await stack.stop()
            raise
    _print_addresses(stack)
    failed = asyncio.create_task(stack.wait_for_failure())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([failed, stopping], return_when=asyncio.FIRST_COMPLETED)
    code = 0
    if failed.done():
        dead = failed.result()
        print_error(
            f"{dead.name} ended with exit code {dead.exit_code} and does not stay up; its log is "
            f"{stack.directory.logs / dead.name}.log"
        )
        code = EXIT_FAILED
    for task in (failed, stopping):
        task.cancel()
    print_note("stopping: finishing what is in flight (Ctrl-C again stops at once)")
    await stack.stop()
    return code


async def _before(stop: asyncio.Event, work: object) -> bool:
    """Do `work` unless asked to stop first; returns whether it was done."""
    assert asyncio.iscoroutine(work)
    task = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if task.done():
        task.result()
        return True
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return False


def _stop_on_signals(stop: asyncio.Event) -> None:
    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)  # the kernel kills the children with this process
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)


def _print_addresses(stack: Stack) -> None:
    from rich.table import Table

    from imagewire.cli.terminal import console

    record = stack.record
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("Kafka", record.broker_address, stack.broker_reason)
    table.add_row(
        "ClickHouse",
        f"http://{record.clickhouse_host}:{record.clickhouse_port}",
        f"user {record.analyst_user} reads; passwords in {stack.directory.path / 'run.json'}",
    )
    table.add_row(
        "Qdrant",
        f"{record.qdrant_host}:{record.qdrant_port} (gRPC)",
        f"API key in {stack.directory.path / 'run.json'}",
    )
    table.add_row(
        "worker",
        f"http://127.0.0.1:{record.worker_http_port}",
        "/metrics and /healthz",
    )
    console.print(table)
    where = (
        ""
        if stack.directory.path.resolve() == Path("imagewire-data").resolve()
        else f" --data {stack.directory.path}"
    )
    console.print(
        f"\nimagewire publish{where} PHOTO …     imagewire watch{where} verdicts\n"
        f'imagewire sql{where} "SELECT …"      imagewire search{where} PHOTO\n\n'
        "Ctrl-C stops everything; the data stays.",
        style="dim",
    )
