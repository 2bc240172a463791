"""`imagewire config`: which settings are in force, and where each came from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter


def config(
    *,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    json: bool = False,
    describe: bool = False,
) -> None:
    """Print the settings in force and where each value came from. Secrets are masked.

    Parameters
    ----------
    config: settings file; imagewire.toml in the working folder when not given.
    json: print one JSON object of key to value and origin.
    describe: add what each setting means.
    """
    from rich.table import Table
    from rich.text import Text

    from imagewire.cli.tables import cell_text
    from imagewire.cli.terminal import console, print_json, print_note
    from imagewire.settings import describe_settings, load_settings

    loaded = load_settings(config)
    rows: dict[str, Any] = {}
    for setting in describe_settings(loaded):
        rows[setting.key] = {"value": setting.value, "origin": setting.origin}
        if describe:
            rows[setting.key]["description"] = setting.description
    if json:
        print_json(rows)
        return
    print_note(f"file: {loaded.file or 'none (no imagewire.toml here)'}")
    table = Table()
    for heading in ("setting", "value", "from", *(["meaning"] if describe else [])):
        table.add_column(heading, overflow="fold")
    for key, row in rows.items():
        table.add_row(
            key,
            Text(cell_text(row["value"])),
            Text(row["origin"], style="" if row["origin"] != "default" else "dim"),
            *([row["description"]] if describe else []),
        )
    console.print(table)
