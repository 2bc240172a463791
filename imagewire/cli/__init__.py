"""The command line: `imagewire COMMAND`. Each command has a file of its own, imported when used.

Exit codes: 0 done; 1 it did not work out; 2 the command or the settings are wrong; 3 a broker or
store cannot be reached; 130 interrupted.
"""

from __future__ import annotations

import sys
from importlib.metadata import version

import cyclopts

from imagewire.cli.outcome import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    CommandError,
)
from imagewire.cli.terminal import print_error

app = cyclopts.App(
    name="imagewire",
    help="Stream processing for continuous image feeds.",
    version=lambda: version("imagewire"),
    help_on_error=False,
)
for _command in (
    "demo",
    "up",
    "worker",
    "publish",
    "watch",
    "sql",
    "search",
    "config",
    "doctor",
    "schemas",
):
    # By name: importing torch for `imagewire --help` would take seconds.
    app.command(f"imagewire.cli.{_command}:{_command}", name=_command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        result = app(arguments, exit_on_error=False, result_action="return_value")
    except cyclopts.CycloptsError:
        return EXIT_USAGE  # cyclopts has explained it
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else EXIT_FAILED
    except BrokenPipeError:
        # The reader (`head`, say) has enough; keep Python from complaining at exit.
        sys.stdout = None
        return 0
    except Exception as error:  # noqa: BLE001 - raised again unless it has words for people
        return _explain(error)
    return result if isinstance(result, int) else 0


def _explain(error: Exception) -> int:
    """Errors with a message for people are printed as one; anything else is a defect and keeps its
    traceback."""
    from imagewire.embedded.errors import EmbeddedError
    from imagewire.settings import ConfigurationError
    from models.errors import ModelError
    from operators.operator import OperatorError
    from operators.policy import PolicyError
    from sinks.clickhouse.reader import QueryError
    from sinks.sink import PermanentSinkError, TransientSinkError

    if isinstance(error, ConfigurationError | ModelError | OperatorError | PolicyError):
        print_error(str(error))
        return EXIT_USAGE
    if isinstance(error, TransientSinkError) or (isinstance(error, QueryError) and error.transient):
        print_error(str(error))
        return EXIT_UNREACHABLE
    if isinstance(error, PermanentSinkError | QueryError | EmbeddedError | CommandError):
        print_error(str(error))
        return EXIT_FAILED
    raise error
