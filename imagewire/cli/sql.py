"""`imagewire sql`: questions to ClickHouse, read-only."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def sql(
    query: str,
    *,
    format: Literal["table", "json", "csv", "arrow"] = "table",
    data: Annotated[Path | None, Parameter(name=["--data", "-d"])] = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
) -> None:
    """Run one read-only SQL statement over everything that was found.

    Tables: images, detections, texts, scores, verdicts, failures and more; `SHOW TABLES` lists
    them, docs/sql.md explains them.

    Parameters
    ----------
    query: the statement, such as "SELECT label, count() FROM detections GROUP BY label".
    format: table for people; json (one object a line), csv or arrow (IPC stream) for programs.
    data: data directory of the running stack to ask.
    config: settings file that names the ClickHouse server to ask.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.ipc

    from imagewire.cli.tables import print_arrow_table
    from imagewire.cli.terminal import print_json
    from imagewire.connection import find_connection
    from sinks.clickhouse.reader import ClickHouseReader

    with ClickHouseReader(find_connection(data, config).settings.clickhouse) as reader:
        answer: pa.Table = reader.query(query)
    if format == "table":
        print_arrow_table(answer)
    elif format == "json":
        for row in answer.to_pylist():
            print_json(row, lines=True)
    elif format == "csv":
        pyarrow.csv.write_csv(answer, sys.stdout.buffer)
    else:
        with pyarrow.ipc.new_stream(sys.stdout.buffer, answer.schema) as writer:
            writer.write_table(answer)
    sys.stdout.flush()
