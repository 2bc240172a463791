"""The error of the embedded stack: a message for the person who typed the command.

Every message says what went wrong, where, and what to do about it, because the reader stands in
front of a terminal and not of this code.
"""

from __future__ import annotations


class EmbeddedError(Exception):
    """The embedded stack, or a part of it, cannot be started or used."""
