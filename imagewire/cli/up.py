"""`imagewire up`: everything on this machine, left running until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from imagewire.embedded.stack import Stack

_CALIBRATIONS_VARIABLE = "IMAGEWIRE_POLICY__CALIBRATIONS_FOLDER"


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
    api_port: int | None = None,
    sql_port: int | None = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
) -> int:
    """Start broker, stores and worker on this machine, until Ctrl-C.

    The stores are ClickHouse's and Qdrant's own engines. Everything listens on 127.0.0.1 only.
    Data stays in the data directory, so that the next start goes on where this one ended. Port 0 is
    any free port.

    Args:
        data: The directory that keeps everything.
        broker: Apache (Java 17 and Maven, durable), tansu (memory only), or HOST:PORT of your own;
                apache where it can run, else tansu, when not given.
        files: Folders from which file: references may be read; give it once for each.
        workers: How many workers to start.
        broker_port: Port of Kafka; kept from the last start, else a free one.
        clickhouse_port: Port of ClickHouse's HTTP interface.
        qdrant_port: Port of Qdrant's gRPC interface.
        http_port: Port of the first worker's /metrics and /healthz.
        api_port: Port of the HTTP API and the console; kept, else 8080 (api.port), else a free one.
        sql_port: Port for ClickHouse clients of your own (DBeaver, Grafana, clickhouse-connect),
                which may only read; off when not given.
        config: Settings file for the workers.
    """
    from imagewire.cli.outcome import UsageError
    from imagewire.connection import calibrations_of
    from imagewire.embedded.broker_choice import check_spec
    from imagewire.embedded.stack import StackPorts
    from imagewire.preflight import check_ports, check_settings
    from imagewire.settings import CONFIG_VARIABLE, load_settings

    if workers < 1:
        raise UsageError(f"--workers is {workers}; start at least 1")
    for folder in files:
        if not folder.is_dir():
            raise UsageError(f"--files {folder} is no folder")
    check_spec(broker)
    given = {
        "--broker-port": broker_port,
        "--clickhouse-port": clickhouse_port,
        "--qdrant-port": qdrant_port,
        "--http-port": http_port,
        "--api-port": api_port,
        "--sql-port": sql_port,
    }
    check_ports(given, data)
    loaded = load_settings(config)  # wrong settings are told now, not in a worker's log
    check_settings(loaded.settings)
    if loaded.file is not None:
        os.environ[CONFIG_VARIABLE] = str(loaded.file.resolve())
    if loaded.settings.policy.calibrations_folder is None:
        os.environ[_CALIBRATIONS_VARIABLE] = str(calibrations_of(data))
    logging.basicConfig(level="WARNING", format="%(levelname)s %(message)s", stream=sys.stderr)
    ports = StackPorts(broker_port, clickhouse_port, qdrant_port, http_port, api_port, sql_port)
    return asyncio.run(_run(data, broker, files, workers, ports))


async def _run(
    data: Path, broker: str | None, files: tuple[Path, ...], workers: int, ports: object
) -> int:
    from rich.markup import escape

    from imagewire.cli.outcome import EXIT_FAILED
    from imagewire.cli.terminal import error_console, print_error, print_note, printable
    from imagewire.embedded.broker_choice import fetches_jars
    from imagewire.embedded.disk_space import DiskWatch, disk_trouble
    from imagewire.embedded.stack import Stack, StackPorts

    assert isinstance(ports, StackPorts)
    stop = asyncio.Event()
    _stop_on_signals(stop)
    longer = ", and longer this first time, as Kafka's jars are fetched" * fetches_jars(broker)
    print_note(f"starting; this takes about half a minute{longer}")
    with error_console.status("starting") as status:

        def report(doing: str) -> None:
            # Without a terminal nothing turns, so each step gets a line.
            if error_console.is_terminal:
                status.update(escape(printable(doing)))
            else:
                print_note(doing)

        watching = asyncio.create_task(DiskWatch(data, _warn).run())
        stack = Stack(data, broker, ports=ports, file_roots=files, report=report)

        async def start() -> None:
            await stack.start()
            api = asyncio.create_task(stack.start_api())
            try:
                for _ in range(workers):
                    await stack.start_worker()
                await api
            finally:
                api.cancel()

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
        trouble = disk_trouble(stack.directory.path)
        print_error(
            f"{dead.name} ended with exit code {dead.exit_code} and does not stay up"
            f"{f': {trouble}' if trouble else ''}; "
            f"its log is {stack.directory.logs / dead.name}.log"
        )
        code = EXIT_FAILED
    for task in (failed, stopping):
        task.cancel()
    watching.cancel()
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


def _warn(message: str) -> None:
    from imagewire.cli.terminal import print_note

    print_note(f"warning: {message}")


def _stop_on_signals(stop: asyncio.Event) -> None:
    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)  # the kernel kills the children with this process
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)


def _print_addresses(stack: Stack) -> None:
    """One line for each address and command, never folded: people copy them."""
    from imagewire.cli.terminal import console, printable
    from imagewire.connection import DEFAULT_DATA

    record = stack.record
    secrets = stack.directory.path / "run.json"
    where = ""
    if stack.directory.path.resolve() != DEFAULT_DATA.resolve():
        where = f" --data {shlex.quote(str(stack.directory.path))}"
    worker = f"http://127.0.0.1:{record.worker_http_port}"
    lines = [
        f"Kafka       {record.broker_address}",
        f"            {stack.broker_reason}",
        f"ClickHouse  http://{record.clickhouse_host}:{record.clickhouse_port}",
        f"            user {record.analyst_user} may read; passwords in {secrets}",
        f"Qdrant      {record.qdrant_host}:{record.qdrant_port} (gRPC)",
        f"            API key in {secrets}",
        f"worker      {worker}/metrics and {worker}/healthz",
        f"console     http://{record.api_host}:{record.api_port}/",
        "",
        f"imagewire publish{where} PHOTO …",
        f"imagewire watch{where} verdicts",
        f'imagewire sql{where} "SELECT …"',
        f"imagewire search{where} PHOTO",
        "",
        "Ctrl-C stops everything; the data stays.",
    ]
    if record.sql_port is not None:
        lines.insert(
            4, f"            the same for other clients: http://127.0.0.1:{record.sql_port}"
        )
    for line in lines:
        console.print(printable(line), soft_wrap=True, markup=False)
