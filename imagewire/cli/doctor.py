"""`imagewire doctor`: can this machine work, and if not, how to mend it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

_MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]look[/]", "error": "[bold red]mend[/]"}


def doctor(
    *,
    json: bool = False,
    data: Annotated[Path | None, Parameter(name=["--data", "-d"])] = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
) -> int:
    """Check whether this machine and these settings can work.

    Looks at Python, torch and its device, weights, policy, disk, broker and stores.

    Exit code 1 if something must be mended; a broker or store that does not answer is only a
    warning, since it may be started later.

    Args:
        json: Print one JSON object for each check.
        data: Data directory of the running stack to check.
        config: Settings file.
    """
    from rich.markup import escape
    from rich.table import Table

    from imagewire.cli.outcome import EXIT_FAILED
    from imagewire.cli.terminal import console, error_console, print_json, printable_lines
    from imagewire.connection import DEFAULT_DATA, find_connection
    from imagewire.doctor import Check, check_settings_file, run_checks
    from imagewire.settings import ConfigurationError

    checks: list[Check] = []
    try:
        settings = find_connection(data, config).settings
    except ConfigurationError as error:
        checks.append(check_settings_file(error))
    else:
        with error_console.status("checking") as status:
            for check in run_checks(settings, data or DEFAULT_DATA):
                checks.append(check)
                status.update(f"checking: {check.name} done")
    if json:
        for check in checks:
            print_json(check, lines=True)
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold", max_width=24)
        table.add_column(overflow="fold")
        for check in checks:
            mend = f"\n→ {check.mend}" if check.mend and check.outcome != "ok" else ""
            table.add_row(
                _MARKS[check.outcome], check.name, escape(printable_lines(check.found + mend))
            )
        console.print(table)
    return EXIT_FAILED if any(check.outcome == "error" for check in checks) else 0
