"""Asks the queries of docs/analysts.md of a demonstration's data, in a process of its own, as
ClickHouse's engine opens one directory a process.

    python tests/servers/analysts_walk.py PAGE CLICKHOUSE_DIRECTORY

prints a list of answers as JSON, each with its columns and its rows.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import NamedTuple


class Question(NamedTuple):
    """A query of the page, and the result that stands below it, cell by cell."""

    sql: str
    columns: list[str]
    rows: list[list[str]]


def questions(page: Path) -> list[Question]:
    """The questions of the page, in their order."""
    found = []
    for sql, below in re.findall(
        r"```sql\n(.*?)```\n\n((?:\|[^\n]*\n)+)", page.read_text("utf-8"), re.DOTALL
    ):
        columns, _, *rows = (
            [cell.strip().strip("`") for cell in line.strip("|").split(" | ")]
            for line in below.splitlines()
        )
        found.append(Question(sql, columns, rows))
    return found


def main() -> None:
    """Print the answers."""
    from sinks.clickhouse.reader import ClickHouseReader
    from sinks.clickhouse.settings import ClickHouseSettings

    settings = ClickHouseSettings(interface="chdb", path=Path(sys.argv[2]))
    answers = []
    with ClickHouseReader(settings) as reader:
        for question in questions(Path(sys.argv[1])):
            table = reader.query(question.sql)
            rows = [list(row.values()) for row in table.to_pylist()]
            answers.append({"columns": table.column_names, "rows": rows})
    json.dump(answers, sys.stdout, default=str)


if __name__ == "__main__":
    main()
