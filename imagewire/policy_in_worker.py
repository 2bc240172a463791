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
from collections.abc import Callable, Sequence
from pathlib import Path

from imagewire.settings import Settings
from operators.calibration import read_calibration
from operators.operator import OperatorError
from operators.policy import Policy
from streams.compacted_topic import CompactedTopic
from streams.metrics import Metrics

logger = logging.getLogger(__name__)

_Seen = tuple[tuple[int, int, int] | None, ...]

_MOST_BYTES = 64 * 1024 * 1024
"""Of records that wait for a look, which at a start are all that stand on the topic; of more, the
oldest are let go. Policies are published by people, and most take some kilobytes."""


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
        self._published: list[bytes] = []
        """Since the last withdrawal, the oldest first: the one in force, and what came later."""
        self._from_topic = False
        self._reloading = asyncio.Lock()
        self._trouble: str | None = None
        self._use: Callable[[Policy], None] = lambda policy: None
        self._changed = asyncio.Event()
        self._seen = _state(self._files())
        self.current = Policy.load(self._settings.file, self._settings.calibrations)
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
        if self._published or self._from_topic:
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
            seen = await asyncio.to_thread(_state, self._files())
            if seen == self._seen and not self._changed.is_set():
                continue
            self._seen = seen
            self._changed.clear()
            await self._reload()

    def _take(self, key: bytes | None, value: bytes | None) -> None:
        if key != self._settings.name.encode():
            return
        if value is None:
            self._published.clear()
        else:
            self._published.append(value)
            size = sum(map(len, self._published))
            while size > _MOST_BYTES:
                size -= len(self._published.pop(0))
        self._changed.set()

    async def _reload(self) -> None:
        async with self._reloading:
            records = tuple(self._published)
            policy, used, reason = await asyncio.to_thread(self._newest, records)
            if reason is None:
                self._trouble = None
            if policy is not None:
                self._from_topic = used is not None
                if policy.version != self.current.version:
                    self._exchange(policy)
            if reason is not None:
                self._refuse(reason)
            if records and tuple(self._published[: len(records)]) == records:
                # What stood between the one in force and the newest will not be asked again.
                kept = {len(records) - 1} if used is None else {used, len(records) - 1}
                self._published[: len(records)] = [records[each] for each in sorted(kept)]

    def _newest(self, records: Sequence[bytes]) -> tuple[Policy | None, int | None, str | None]:
        """The newest of `records` that can be used, else the file's; its place in `records`; and
        why a newer one cannot be used."""
        reason: str | None = None
        for place in reversed(range(len(records))):
            policy, mistake = self._tried(records[place])
            if policy is not None:
                return policy, place, reason
            reason = reason or mistake
        if records and self._from_topic:
            return None, None, reason
        policy, mistake = self._tried(None)
        return policy, None, reason or mistake

    def _tried(self, published: bytes | None) -> tuple[Policy | None, str | None]:
        try:
            return self._read(published), None
        except OperatorError as error:
            return None, str(error)
        except Exception as error:
            # Whoever may write to the topic may write anything; what a defect of ours does to one
            # policy must not end the worker.
            logger.exception("a policy could not be read")
            return None, f"{type(error).__name__}: {error}"

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

    def _read(self, published: bytes | None) -> Policy:
        if published is None:
            return Policy.load(self._settings.file, self._settings.calibrations)
        name = self._settings.name
        calibrations = [read_calibration(file) for file in self._settings.calibrations]
        return Policy.read(published, name, f"policy '{name}' on the topic", calibrations)

    def _refuse(self, reason: str) -> None:
        self._metrics.policy_reload_failures.inc()
        self._trouble = f"{reason}; {self.current.version} stays in force"
        logger.error("a new policy cannot be used: %s", self._trouble)

    def _files(self) -> tuple[Path, ...]:
        own = () if self._settings.file is None else (self._settings.file,)
        return (*own, *self._settings.calibrations)


def _state(files: tuple[Path, ...]) -> _Seen:
    """What changes when a file is written or replaced; `None` for one that is not there."""
    found: list[tuple[int, int, int] | None] = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)
