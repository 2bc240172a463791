"""Tries policies out: whether workers could use one, and what it would have decided.

Both read a policy as the workers with these settings do, calibrations included, so that the version
that is named is the one that verdicts will name. A comparison is seconds of a processor: one is
made at a time, and it looks at so many images and so long and no more.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from imagewire.api.policy_models import PolicyChecked, remarks_of, rule_shown
from imagewire.api.work_thread import WorkThread
from imagewire.settings import Settings
from sinks.clickhouse.reader import ClickHouseReader

if TYPE_CHECKING:
    from imagewire.policy_diff import Comparison
    from operators.policy import Policy

LONGEST_SECONDS = 60.0
"""After which a comparison tells what it has found so far."""

_MOST_FEEDS = 200
_MOST_WAITING = 3


class PolicyTrials:
    """One comparison after the other. Call `close`.

    Args:
        longest: seconds that one may take.
    """

    def __init__(self, settings: Settings, longest: float = LONGEST_SECONDS) -> None:
        self._settings = settings
        self._longest = longest
        self._reader = ClickHouseReader(settings.clickhouse)
        self._thread = WorkThread("comparisons of policies", _MOST_WAITING)
        self._closing = threading.Event()

    def check(self, text: str) -> PolicyChecked:
        """Whether workers could use the policy `text`, under which version, and doubts about it.
        Blocking."""
        from operators.operator import OperatorError

        try:
            policy = self.read(text)
        except OperatorError as error:
            return PolicyChecked(
                usable=False, version=None, error=str(error), rules=[], warnings=[]
            )
        return PolicyChecked(
            usable=True,
            version=policy.version,
            error=None,
            rules=[rule_shown(rule) for rule in policy.rules],
            warnings=remarks_of(policy),
        )

    def read(self, text: str, source: str = "policy") -> Policy:
        """The policy `text` under the name of the settings. Blocking.

        Args:
            source: names the text in errors.

        Raises:
            operators.operator.OperatorError: it cannot be used, or a calibration cannot.
        """
        from operators.calibration import read_calibration
        from operators.policy import Policy

        settings = self._settings.policy
        calibrations = [read_calibration(file) for file in settings.calibration_files()]
        return Policy.read(text.encode(), settings.name, source, calibrations)

    async def compare(
        self, new: Policy, other: Policy | None, begin_ms: int, feeds: Sequence[str], images: int
    ) -> Comparison:
        """What `new` would have decided, as `imagewire.policy_diff.compare` says it.

        Args:
            other: compared with it; the stored verdicts if `None`.
            images: that are looked at; of more, a sample.

        Raises:
            BusyError: others wait already.
            QueryError
        """
        from imagewire.policy_diff import Bounds, compare

        def run() -> Comparison:
            deadline = time.monotonic() + self._longest
            bounds = Bounds(
                images,
                _MOST_FEEDS,
                lambda: self._closing.is_set() or time.monotonic() > deadline,
            )
            return compare(self._reader, new, other, begin_ms, feeds, bounds=bounds)

        return await self._thread.run(run)

    async def close(self) -> None:
        """End the comparison at hand."""
        self._closing.set()
        await asyncio.to_thread(self._thread.close)
        self._reader.close()
