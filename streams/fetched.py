"""How fetching fails: the error that every kind of reference shares."""

from __future__ import annotations


class FetchError(Exception):
    """A reference cannot be fetched: `reason` for machines, the message for people.

    Attributes:
        transient: the same reference may work later (refused, reset, timed out, 429, 5xx).
    """

    def __init__(self, reason: str, detail: str, *, transient: bool = False) -> None:
        super().__init__(detail)
        self.reason = reason
        self.transient = transient
