"""`imagewire demo`: real photos through the whole thing, with an account of each."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter


class DemoResult(msgspec.Struct, frozen=True):
    """What `imagewire demo --json` prints."""

    published: int
    findings: int
    dead_letters: int
    lost: int
    doubled: int
    images_per_second: float
    latency_p50_ms: float
    latency_p99_ms: float
    broker: str
    report: str


def demo(
    *,
    broker: str | None = None,
    report: Path = Path("demo.html"),
    keep: Path | None = None,
    json: bool = False,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
) -> int:
    """Send sixty real photos through everything; show what comes out.

    The embedded broker and stores run on free ports in a temporary folder for as long as it takes.
    Exit code 0 only if every image ended exactly once, as findings or as a dead letter.

    Args:
        broker: Apache, tansu or HOST:PORT; apache where it can run, else tansu, when not given.
        report: Where to write the contact sheet.
        keep: Keep photos and data in this directory instead of a temporary one.
        json: Print one JSON object instead of tables.
        config: Settings file for the worker.
    """
    from imagewire.cli.outcome import EXIT_FAILED, CommandError, UsageError
    from imagewire.cli.terminal import console, print_error, print_json, print_note
    from imagewire.demo.contact_sheet import preview_maker, write_contact_sheet
    from imagewire.demo.photos import CREDITS, DemoError
    from imagewire.demo.report import demo_report
    from imagewire.demo.run import run_demonstration
    from imagewire.embedded.broker_choice import check_spec
    from imagewire.settings import CONFIG_VARIABLE, load_settings

    if report.is_dir() or not report.absolute().parent.is_dir():
        # Said now, not after the minutes that the rest takes.
        raise UsageError(f"--report {report} is no file in a folder that exists")
    check_spec(broker)
    loaded = load_settings(config)
    if loaded.file is not None:
        os.environ[CONFIG_VARIABLE] = str(loaded.file.resolve())  # for the worker
    settings = loaded.settings
    logging.basicConfig(level="ERROR", format="%(levelname)s %(message)s", stream=sys.stderr)
    # What asks to end is Ctrl-C's equal: the children are stopped and the folder is removed.
    before = signal.signal(signal.SIGTERM, _interrupt)
    directory = keep or Path(tempfile.mkdtemp(prefix="imagewire-demo-"))
    try:
        # Before everything that takes minutes, so that what is wrong in the settings is said now.
        with (
            preview_maker(
                settings.privacy,
                settings.models.precision,
                settings.models.catalogs,
                settings.operators.get("objects"),
                settings.decode.limits(settings.fetch.max_bytes),
            ) as maker,
            _ProgressDisplay(quiet=json) as progress,
        ):
            result = asyncio.run(
                run_demonstration(directory, settings, broker=broker, progress=progress)
            )
            parts = (result.summary, result.dead_letters, result.answers, CREDITS, maker)
            try:
                write_contact_sheet(report, result.tiles, *parts)
            except OSError as error:
                raise CommandError(f"{report} cannot be written: {error.strerror}") from error
    except DemoError as error:
        raise CommandError(str(error)) from error
    finally:
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)
    summary = result.summary
    if json:
        print_json(
            DemoResult(
                published=summary.published,
                findings=summary.findings,
                dead_letters=summary.dead_letters,
                lost=summary.lost,
                doubled=summary.doubled,
                images_per_second=summary.images_per_second,
                latency_p50_ms=summary.latency_p50_ms,
                latency_p99_ms=summary.latency_p99_ms,
                broker=summary.broker,
                report=str(report.resolve()),
            )
        )
    else:
        console.print(demo_report(result.tiles, summary, result.dead_letters, result.answers))
        print_note(f"contact sheet: {report.resolve()}")
    accounted = not summary.lost and not summary.doubled
    if not accounted:
        print_error(
            f"lost: {', '.join(sorted(result.account.lost)) or 'none'}; "
            f"doubled: {', '.join(sorted(result.account.doubled)) or 'none'}"
        )
    return 0 if accounted else EXIT_FAILED


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)


class _ProgressDisplay:
    """Shows progress on standard error: a bar where there is a measure, else a spinner."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        from imagewire.cli.terminal import error_console

        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=error_console,
            transient=True,
            disable=quiet or not error_console.is_terminal,
        )
        self._task = self._progress.add_task("starting", total=None)

    def __enter__(self) -> _ProgressDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()

    def doing(self, what: str) -> None:
        self._progress.update(self._task, description=what, total=None)

    def counted(self, what: str, done: int, total: int) -> None:
        self._progress.update(self._task, description=what, completed=done, total=total)
