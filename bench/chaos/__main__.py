"""`python -m bench.chaos`: break everything, count everything. Exit 1 if anything was lost,
doubled, or ended where it should not have; exit 2 if it could not be run."""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console

from bench.chaos.broker_faults import broker_killed, connection_cut
from bench.chaos.image_faults import malformed
from bench.chaos.reference_faults import hostile_references
from bench.chaos.report import Row, print_table, write_json
from bench.chaos.stage import Stage
from bench.chaos.store_faults import (
    CLICKHOUSE_MODES,
    QDRANT_MODES,
    clickhouse_away,
    qdrant_away,
)
from bench.chaos.worker_faults import killed, scaled
from imagewire.embedded.errors import EmbeddedError

logger = logging.getLogger(__name__)

RESULTS = Path(__file__).parents[1] / "chaos.json"

Scenario = Callable[[Stage], Awaitable[list[Row]]]


def scenarios(kills: int) -> dict[str, Scenario]:
    """By name, in the order in which they run."""

    def one(run: Callable[[Stage], Awaitable[Row]]) -> Scenario:
        async def rows(stage: Stage) -> list[Row]:
            return [await run(stage)]

        return rows

    return {
        "killed": one(lambda stage: killed(stage, kills)),
        "clickhouse": one(lambda stage: clickhouse_away(stage, 8.0, CLICKHOUSE_MODES)),
        "qdrant": one(lambda stage: qdrant_away(stage, 8.0, QDRANT_MODES)),
        "broker": one(lambda stage: broker_killed(stage, 2, 5.0)),
        "cut": one(lambda stage: connection_cut(stage, 60.0)),
        "images": lambda stage: malformed(stage, 1500),
        "references": one(lambda stage: hostile_references(stage, 8)),
        "scaled": one(scaled),
    }


async def run(
    names: list[str], kills: int, directory: Path, console: Console, out: Path
) -> list[Row]:
    """Run the scenarios one after another on one stack; rows are written to `out` as they come."""
    began = time.monotonic()

    def report(what: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:6.1f} s[/dim]  {what}", highlight=False)

    rows: list[Row] = []
    known = scenarios(kills)
    async with Stage(directory, report=report) as stage:
        for name in names:
            try:
                found = await known[name](stage)
            except Exception as error:
                # A scenario that cannot even be played to its end has failed; the others may tell
                # more.
                logger.exception("scenario %s", name)
                found = [Row.unfinished(name, error)]
            for row in found:
                rows.append(row)
                write_json(rows, out)
                report(
                    f"[bold]{row.fault}[/bold]: published {row.published}, lost {row.lost}, "
                    f"doubled {row.doubled}, dead letters {row.dead_letters}"
                )
                for sentence in row.wrong[:3]:
                    report(f"[red]{sentence}[/red]")
    return rows


def main() -> int:
    known = list(scenarios(1))
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="kill -9 of the worker, so often")
    parser.add_argument("--only", help=f"some of: {', '.join(known)}; separated by commas")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the rows go, as JSON")
    parser.add_argument("--keep", type=Path, help="run in this folder and leave it, with its logs")
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else known
    if unknown := [name for name in names if name not in known]:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")
    # Not a terminal: wide enough for the table, whatever reads it.
    console = Console(width=None if sys.stdout.isatty() else 170, soft_wrap=False)
    directory = arguments.keep or Path(tempfile.mkdtemp(prefix="imagewire-chaos-"))
    try:
        rows = asyncio.run(run(names, arguments.kills, directory, console, arguments.out))
    except EmbeddedError as error:
        console.print(f"[red]the stack cannot run: {error}[/red]")
        return 2
    finally:
        if arguments.keep is None:
            shutil.rmtree(directory, ignore_errors=True)
    print_table(rows, console)
    console.print(f"rows: {arguments.out}")
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
