"""The command line: `imagewire COMMAND`. Each command has a file of its own.

Exit codes: 0 done; 1 it did not work out; 2 the command or the settings are wrong; 3 a broker or
store cannot be reached; 130 interrupted.
"""

from __future__ import annotations

import os
import sys

from imagewire.cli.outcome import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
)

COMMANDS = (
    *("demo", "up", "publish", "watch", "replay", "review", "forget"),
    *("ban", "policy", "terms", "calibrate", "webhooks", "sql", "search"),
    *("worker", "serve", "config", "doctor", "models", "schemas"),
)
"""In the order in which they are met. The module and the function in it are called alike."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        # Here and not above: Ctrl-C while they load must find somebody who expects it.
        import cyclopts

        from imagewire.cli.command_table import app
        from imagewire.cli.log_output import quiet_libraries

        quiet_libraries()
        try:
            result = app(arguments, exit_on_error=False, result_action="return_value")
        except cyclopts.CycloptsError:
            return EXIT_USAGE  # cyclopts has explained it
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else EXIT_FAILED
    except BrokenPipeError:
        _forget_standard_output()
        return 0
    except Exception as error:  # noqa: BLE001 - raised again unless it has words for people
        return EXIT_INTERRUPTED if _began_with_interrupt(error) else _explain(error)
    return result if isinstance(result, int) else 0


def _began_with_interrupt(error: BaseException | None) -> bool:
    """Extension modules that are interrupted while they load raise an ImportError of their own."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _forget_standard_output() -> None:
    """The reader (`head`, say) has enough: keep Python from complaining when it flushes at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


_WRONG_SETTINGS = (
    ("imagewire.settings", "ConfigurationError"),
    ("imagewire.cli.outcome", "UsageError"),
    ("imagewire.embedded.broker_choice", "BrokerSpecError"),
    ("models.errors", "ModelError"),
    ("operators.operator", "OperatorError"),
    ("operators.policy", "PolicyError"),
    ("operators.terms_file", "TermsError"),
)
_UNREACHABLE = (
    ("imagewire.reachability", "UnreachableError"),
    ("sinks.sink", "TransientSinkError"),
)
_FAILED = (
    ("imagewire.cli.outcome", "CommandError"),
    ("imagewire.embedded.errors", "EmbeddedError"),
    ("sinks.clickhouse.reader", "QueryError"),
    ("sinks.sink", "PermanentSinkError"),
)


def _explain(error: Exception) -> int:
    """Errors with a message for people are printed as one; anything else is a defect and keeps its
    traceback."""
    if _is_one_of(error, _WRONG_SETTINGS):
        code = EXIT_USAGE
    elif _is_one_of(error, _UNREACHABLE) or getattr(error, "transient", False):
        code = EXIT_UNREACHABLE
    elif _is_one_of(error, _FAILED):
        code = EXIT_FAILED
    else:
        raise error
    from imagewire.cli.terminal import print_error

    print_error(str(error))
    return code


def _is_one_of(error: Exception, kinds: tuple[tuple[str, str], ...]) -> bool:
    """Looks only among modules that are loaded: an error of a module that is not cannot be here,
    and some would bring torch along."""
    return any(
        isinstance(error, getattr(sys.modules[module], name))
        for module, name in kinds
        if module in sys.modules
    )
