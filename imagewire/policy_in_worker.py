"""The policy of a worker: loaded at the start, and exchanged while it works.

A new one comes from the file when that changes, or from the control topic. It is read and checked
beside the stream, and takes the place of the old one in one step between two batches. One that
cannot be used changes nothing but `/healthz`, the log and a metric: the old one stays in force,
since no policy and half a policy are both worse.

A policy on the topic is in force instead of the file until it is withdrawn, also after a restart:
all workers then decide alike, whatever each finds on its own disk. Where the last record cannot be
used, the last one before it that can is in force, so that a worker that starts decides as those do
that were running when the bad one came.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from imagewire.policy_records import PolicyRecords
from imagewire.policy_settings import PolicySettings
from imagewire.settings import Settings
from operators.calibration import CalibrationError
from operators.policy import Policy
from streams.compacted_topic import CompactedTopic
from streams.metrics import Metrics

logger = logging.getLogger(__name__)

_Seen = tuple[tuple[int, int, int] | None, ...]


class PolicyInWorker:
    """Keeps a worker's policy current. For use in one event loop.

    Attributes:
        current: the policy in force.

    Raises:
        operators.policy.PolicyError, operators.calibration.CalibrationError: the policy or a
            calibration in the settings cannot be used.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings.policy
        self._metrics = metrics
        self._records = PolicyRecords(settings.policy)
        self._from_topic = False
        self._reloading = asyncio.Lock()
        self._trouble: str | None = None
        self._use: Callable[[Policy], None] = lambda policy: None
        self._changed = asyncio.Event()
        self._seen = _state(self._settings)
        files = self._settings.calibration_files()
        self.current = Policy.load(self._settings.file, files)
        metrics.policy_info.labels(self.current.version).set(1)
        self._topic: CompactedTopic | None = None
        if self._settings.follow:
            self._topic = CompactedTopic(settings.kafka, settings.kafka.topics.policy, self._take)

    def on_change(self, use: Callable[[Policy], None]) -> None:
        """`use` is told of each policy that comes into force from now on."""
        self._use = use

    def troubles(self) -> dict[str, str]:
        """What does not work at the moment, and why."""
        found: dict[str, str] = {}
        if self._trouble is not None:
            found["policy"] = self._trouble
        if self._topic is not None and self._topic.trouble is not None:
            found["policy topic"] = self._topic.trouble
        return found

    async def ready(self) -> None:
        """Wait until the policy that stands on the topic is in force. `run` has to be under way."""
        if self._topic is None:
            return
        await self._topic.ready()
        if self._records.now or self._from_topic:
            self._changed.clear()
            await self._reload()

    async def run(self) -> None:
        """Follow the file and the topic until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(), name="policy")
            if self._topic is not None:
                group.create_task(self._topic.run(), name="policy topic")

    async def _watch(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._settings.check_seconds):
                    await self._changed.wait()
            except TimeoutError:
                pass
            seen = await asyncio.to_thread(_state, self._settings)
            if seen == self._seen and not self._changed.is_set():
                continue
            self._seen = seen
            self._changed.clear()
            await self._reload()

    def _take(self, key: bytes | None, value: bytes | None) -> None:
        if self._records.take(key, value):
            self._changed.set()

    async def _reload(self) -> None:
        async with self._reloading:
            records = self._records.now
            found = await asyncio.to_thread(
                self._records.newest, records, settings_too=not self._from_topic
            )
            if found.policy is not None:
                self._from_topic = found.place is not None
                if found.policy.version != self.current.version:
                    self._exchange(found.policy)
            self._trouble = None
            if found.trouble is not None:
                self._refuse(found.trouble)
            self._records.looked_at(records, found)

    def _exchange(self, policy: Policy) -> None:
        old = self.current.version
        self.current = policy
        self._use(policy)
        self._metrics.policy_info.clear()
        self._metrics.policy_info.labels(policy.version).set(1)
        logger.info(
            "policy %s is in force instead of %s: %d rules%s",
            policy.version,
            old,
            len(policy.rules),
            ", from the topic" if self._from_topic else "",
        )

    def _refuse(self, reason: str) -> None:
        self._metrics.policy_reload_failures.inc()
        self._trouble = f"{reason}; {self.current.version} stays in force"
        logger.error("a new policy cannot be used: %s", self._trouble)


def _state(settings: PolicySettings) -> _Seen:
    """What changes when a file is written or replaced; `None` for one that is not there."""
    try:
        files = settings.calibration_files()
    except CalibrationError:
        files = settings.calibrations
    found: list[tuple[int, int, int] | None] = []
    for file in (*files, *(() if settings.file is None else (settings.file,))):
        try:
            status = file.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)
