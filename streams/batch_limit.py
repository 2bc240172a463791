"""How many frames a batch may have, which the device's memory teaches.

A batch that does not fit is halved and tried again, which costs each of its parts a second try. So
the next batches are kept to what did fit, and grow back slowly: other programs on the device come
and go, and pictures of one feed can be larger than those of another.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class BatchLimit:
    """The most frames in a batch at the moment.

    Args:
        max_batch: the limit while memory suffices.
        recovery_seconds: after so long without running out, the limit grows by an eighth of
            `max_batch`; a try that fails again costs one batch its halving, twice a minute at most.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        max_batch: int,
        recovery_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_batch = max_batch
        self._recovery_seconds = recovery_seconds
        self._clock = clock
        self._limit = max_batch
        self._since = clock()

    def current(self) -> int:
        """The limit now; at least 1."""
        now = self._clock()
        if self._limit < self._max_batch and now - self._since >= self._recovery_seconds:
            self._limit = min(self._limit + max(1, self._max_batch // 8), self._max_batch)
            self._since = now
        return self._limit

    def did_not_fit(self, batch_size: int) -> int:
        """A batch of `batch_size` did not fit and its halves did; returns the limit from now on."""
        self._limit = max(1, min(self._limit, (batch_size + 1) // 2))
        self._since = self._clock()
        return self._limit
