"""Why no image is taken at the moment, which a worker with nothing in flight would not notice.

A broker that is away, or a topic that somebody deleted, fails no write while nothing is written:
the consumer waits and tries again without an end. So it is looked at from outside, said once in the
log, and shown on `/healthz` for as long as it lasts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

logger = logging.getLogger(__name__)

GRACE_SECONDS = 3.0
"""A group is without its coordinator for a moment whenever the broker that holds it changes, and
before the first join."""


class Intake:
    """What hinders it; `look` is called every second or so.

    Args:
        servers: the broker's address, for messages.
        clock: seconds, from any beginning.
    """

    def __init__(self, servers: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._servers = servers
        self._clock = clock
        self._alone_since: float | None = None
        self._hindered_since = 0.0
        self.hindrance: str | None = None

    def look(self, coordinated: bool, partitions: Mapping[str, int]) -> None:
        """Judge what the consumer knows at this moment.

        Args:
            coordinated: whether a broker that coordinates the consumer group is known to it.
            partitions: each topic of images, and how many partitions it has; none if it is gone.
        """
        now = self._clock()
        if coordinated:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = now
        before, self.hindrance = self.hindrance, self._found(now, partitions)
        if self.hindrance is not None and self.hindrance != before:
            if before is None:
                self._hindered_since = now
            logger.warning("%s", self.hindrance)
        elif before is not None and self.hindrance is None:
            logger.warning("images are taken again after %.0f s", now - self._hindered_since)

    def _found(self, now: float, partitions: Mapping[str, int]) -> str | None:
        if self._alone_since is not None and now - self._alone_since >= GRACE_SECONDS:
            return (
                f"no image is taken: no broker at {self._servers} answers for the consumer group; "
                "it is asked again until one does"
            )
        missing = sorted(topic for topic, count in partitions.items() if not count)
        if missing:
            return (
                f"no image is taken from {' and '.join(missing)}: there is no such topic any more; "
                "create it again, or restart the worker, which creates what is missing"
            )
        return None
