"""`imagewire sql`: questions to ClickHouse, read-only."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    import pyarrow as pa


def sql(
    query: str,
    /,
    *,
    format: Literal["table", "json", "csv", "arrow"] = "table",
    data: Annotated[Path | None, Parameter(name=["--data", "-d"])] = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
) -> None:
    """Ask ClickHouse one read-only question in SQL.

    Tables: images, detections, texts, scores, verdicts, failures and more; `SHOW TABLES` lists
    them, docs/sql.md explains them.

    Args:
        query: The statement, such as "SELECT label, count() FROM detections GROUP BY label".
        format: Table for people; json (one object a line), csv or arrow (IPC stream) for programs.
        data: Data directory of the running stack to ask.
        config: Settings file that names the ClickHouse server to ask.
    """
    from imagewire.cli.outcome import UsageError
    from imagewire.cli.tables import print_arrow_table, with_readable_text
    from imagewire.cli.terminal import print_json
    from imagewire.connection import find_connection
    from imagewire.reachability import reaching
    from sinks.clickhouse.reader import ClickHouseReader

    if format == "arrow" and sys.stdout.isatty():
        raise UsageError("Arrow is binary and no use on a terminal; send it to a file: … > FILE")
    connection = find_connection(data, config)
    with (
        reaching(connection, "ClickHouse"),
        ClickHouseReader(connection.settings.clickhouse) as reader,
    ):
        answer = with_readable_text(reader.query(query))
    if format == "table":
        print_arrow_table(answer)
    elif format == "json":
        for row in answer.to_pylist(maps_as_pydicts="lossy"):
            print_json(row, lines=True)
    elif format == "csv":
        _write_csv(answer)
    else:
        import pyarrow.ipc

        with pyarrow.ipc.new_stream(sys.stdout.buffer, answer.schema) as writer:
            writer.write_table(answer)
    sys.stdout.flush()


def _write_csv(answer: pa.Table) -> None:
    """CSV; lists and maps, which it does not know, are JSON in their cells."""
    import io

    import msgspec
    import pyarrow as pa
    import pyarrow.csv

    from imagewire.cli.terminal import print_raw, printable_lines

    flat = answer
    for index, field in enumerate(answer.schema):
        if pa.types.is_nested(field.type):
            values = answer.column(index).to_pylist(maps_as_pydicts="lossy")
            texts = [
                None if value is None else msgspec.json.encode(value).decode() for value in values
            ]
            flat = flat.set_column(index, field.name, pa.array(texts, pa.string()))
    if not sys.stdout.isatty():
        pyarrow.csv.write_csv(flat, sys.stdout.buffer)
        return
    # On a terminal, text from feeds must not steer it.
    written = io.BytesIO()
    pyarrow.csv.write_csv(flat, written)
    print_raw(printable_lines(written.getvalue().decode()))
