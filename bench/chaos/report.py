"""What the faults did, as a table for people and as rows for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.chaos.account import Account

_SHOWN = 12


@dataclass(slots=True)
class Row:
    """One fault and its account. `peak_mib` is the largest resident set of any worker process
    tree; `repeats` counts output records on Kafka beyond one an image."""

    fault: str
    published: int
    stored: int
    vectors: int
    verdicts: int
    dead_letters: int
    lost: int
    doubled: int
    peak_mib: float
    seconds: float
    repeats: int = 0
    images_per_second: float | None = None
    note: str = ""
    wrong: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, fault: str, account: Account, peak_mib: float, seconds: float) -> Row:
        """The row of an account."""
        wrong = list(account.wrong)
        if account.lost:
            wrong.append("lost: " + ", ".join(account.lost[:_SHOWN]))
        if account.doubled:
            wrong.append("doubled: " + ", ".join(account.doubled[:_SHOWN]))
        return cls(
            fault=fault,
            published=account.published,
            stored=account.stored,
            vectors=account.vectors,
            verdicts=account.verdicts,
            dead_letters=account.dead_letters,
            lost=len(account.lost),
            doubled=len(account.doubled),
            peak_mib=round(peak_mib, 1),
            seconds=round(seconds, 1),
            repeats=account.repeats,
            wrong=wrong,
        )

    @classmethod
    def unfinished(cls, fault: str, error: Exception) -> Row:
        """The row of a scenario that could not be played to its end."""
        said = f"not played to its end: {type(error).__name__}: {error}"
        return cls(fault, 0, 0, 0, 0, 0, 0, 0, 0.0, 0.0, wrong=[said])

    @property
    def passed(self) -> bool:
        """Whether nothing was lost, doubled, or ended where it should not have."""
        return not (self.lost or self.doubled or self.wrong)


_COLUMNS = (
    ("published", "published"),
    ("stored", "ClickHouse"),
    ("vectors", "Qdrant"),
    ("verdicts", "verdicts"),
    ("dead_letters", "dead letters"),
    ("lost", "lost"),
    ("doubled", "doubled"),
    ("repeats", "repeats"),
    ("peak_mib", "peak MiB"),
    ("seconds", "s"),
)


def print_table(rows: Sequence[Row], console: Console) -> None:
    """The table, and below it whatever went wrong."""
    table = Table(title="Every published image, by fault", title_justify="left")
    table.add_column("fault", overflow="fold")
    for _, heading in _COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("note", overflow="fold")
    for row in rows:
        values = [f"{getattr(row, name):g}" for name, _ in _COLUMNS]
        style = "" if row.passed else "bold red"
        table.add_row(row.fault, *values, row.note, style=style)
    console.print(table)
    for row in rows:
        for sentence in row.wrong[:_SHOWN]:
            console.print(f"[red]{row.fault}[/red]: {sentence}", highlight=False)


def write_json(rows: Sequence[Row], path: Path) -> None:
    """The rows as a JSON list."""
    path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
