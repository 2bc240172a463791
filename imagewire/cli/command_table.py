"""The commands with their options, as cyclopts sees them; `imagewire.cli` runs it."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version

import cyclopts

from imagewire.cli import COMMANDS

app = cyclopts.App(
    name="imagewire",
    help="Stream processing for continuous image feeds.",
    version=lambda: version("imagewire"),
    help_on_error=False,
    # `--no-json` and the like would only lengthen the help: every flag is off until given.
    default_parameter=cyclopts.Parameter(negative=()),
)
for _position, _name in enumerate(COMMANDS):
    # These modules import what they need when they run: torch alone takes seconds.
    _module = import_module(f"imagewire.cli.{_name}")
    _command = getattr(_module, _name)
    if isinstance(_command, cyclopts.App):  # one with commands of its own
        _command.sort_key = _position
        app.command(_command)
    else:
        app.command(_command, name=_name, sort_key=_position)
