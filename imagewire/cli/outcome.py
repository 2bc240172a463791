"""How a command ends: exit codes that mean something, and the errors that carry a message."""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_INTERRUPTED = 130


class CommandError(Exception):
    """A command cannot do what it was asked; the message says why and what to do."""


class UsageError(CommandError):
    """What was asked makes no sense, whatever the state of the world; the message says why."""
