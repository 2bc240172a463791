"""The interface of a sink, and the two kinds of error that decide what happens next.

A transient error is retried for as long as it takes; a permanent one makes the caller isolate the
row that causes it, so that one bad row never holds up its neighbours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from operators.frame import Frame


class SinkError(Exception):
    """Something went wrong while writing. Use one of the two subclasses."""


class TransientSinkError(SinkError):
    """The same write may succeed later: refused, reset, timed out, overloaded.

    Attributes:
        retry_after: seconds that the store asked to wait, if it said so.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PermanentSinkError(SinkError):
    """The same write would fail again: the data or the configuration is wrong."""


class AccessSinkError(PermanentSinkError):
    """The store does not let us in: a password, a key, a right or a certificate is wrong.

    At the start that is a mistake in the configuration, which ends a worker. Later it is a password
    that was changed or a right that was taken away: no fault of the images, which wait for people
    to mend it.
    """


class Sink(ABC):
    """Writes what became of frames: findings of those that succeeded, failures of the others.

    `write` is idempotent: writing the same frames again leaves the store as it was. It returns
    only when the store has confirmed that everything is safe.
    """

    name: ClassVar[str]

    @abstractmethod
    async def open(self) -> None:
        """Connect and bring the store's schema up to date.

        Raises:
            TransientSinkError: the store cannot be reached now.
            PermanentSinkError: it answers, but cannot be used as configured.
        """

    @abstractmethod
    async def write(self, frames: Sequence[Frame]) -> None:
        """Write `frames`, some of which may have failed; return when they are safe.

        Raises:
            TransientSinkError, PermanentSinkError
        """

    @abstractmethod
    async def close(self) -> None:
        """Release connections. Never raises for a store that is already gone."""
