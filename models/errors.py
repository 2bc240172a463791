"""The one error that everything in `models/` raises for a model that cannot be used.

It lives in a file of its own so that the catalogue and every loader can raise it without importing
each other.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ModelError(Exception):
    """A model cannot be used: the message says which one, what is wrong with it, and what to do."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint to append to "unknown …" messages: the nearest known name, else all of them.

    Returns:
        ` (did you mean 'x'?)`, or ` (known: a, b)` when nothing is near, or the empty string when
        nothing is known.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (known: {', '.join(names)})" if names else ""
