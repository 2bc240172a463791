"""`imagewire config`: which settings are in force, and where each came from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def config(
    *,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    json: bool = False,
    describe: bool = False,
    reference: bool = False,
) -> None:
    """Print the settings in force and where each came from.

    Secrets are masked.

    Args:
        config: Settings file; imagewire.toml in the working folder when not given.
        json: Print one JSON object of key to value and origin.
        describe: Add what each setting means.
        reference: Print the page that explains every setting (Markdown) and nothing else.
    """
    from typing import Any

    from rich.text import Text

    from imagewire.cli.terminal import console, print_json, print_note, print_raw, printable
    from imagewire.settings import load_settings
    from imagewire.settings_reference import describe_settings, settings_page

    if reference:
        print_raw(settings_page())
        return
    loaded = load_settings(config)
    settings = describe_settings(loaded)
    if json:
        rows: dict[str, Any] = {}
        for setting in settings:
            rows[setting.key] = {"value": setting.value, "origin": setting.origin}
            if describe:
                rows[setting.key]["description"] = setting.description
        print_json(rows)
        return
    print_note(f"file: {loaded.file or 'none (no imagewire.toml here)'}")
    # Lines instead of a table: they can be searched, and no terminal is too narrow for them.
    for setting in settings:
        line = Text()
        if describe and setting.description:
            line.append(f"# {printable(setting.description)}\n", style="dim")
        line.append(setting.key, style="bold")
        line.append(f" = {_shown(setting.value)}")
        if setting.origin != "default":
            line.append(printable(f"    ({setting.origin})"), style="cyan")
        console.print(line, soft_wrap=True)


def _shown(value: object) -> str:
    import json

    from imagewire.cli.terminal import printable

    return "–" if value is None else printable(json.dumps(value, ensure_ascii=False))
