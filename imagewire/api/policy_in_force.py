"""Which policy is in force, as a worker with the same settings finds it: topic first, then file.

The topic is followed from the first question on, so that a policy that was just published is shown,
and one that workers cannot use is shown with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from imagewire.settings import Settings
from streams.compacted_topic import CompactedTopic

if TYPE_CHECKING:
    from imagewire.policy_records import PolicyRecords
    from operators.policy import Policy

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 5.0

Source = Literal["topic", "file", "shipped"]


@dataclass(frozen=True, slots=True)
class InForce:
    """A policy, where it came from, and its text.

    Attributes:
        policy: `None` if it cannot be used; `trouble` says why.
        trouble: also that the topic could not be read, so that the file was, or that a newer one
            cannot be used.
    """

    policy: Policy | None
    source: Source
    text: str
    trouble: str | None


class PolicyInForce:
    """Follows one policy for as long as the process lives. Nothing is read before it is asked."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._records: PolicyRecords | None = None
        self._topic: CompactedTopic | None = None
        self._following: asyncio.Task[None] | None = None
        self._known: tuple[object, InForce] | None = None

    async def now(self) -> InForce:
        """The policy in force at this moment."""
        if self._records is None:
            made = await asyncio.to_thread(_records_of, self._settings)
            self._records = self._records or made
        records = self._records
        trouble = await self._topic_read(records) if self._settings.policy.follow else None
        found = await asyncio.to_thread(self._read, records)
        if trouble is not None and found.trouble is None:
            return InForce(found.policy, found.source, found.text, trouble)
        return found

    async def close(self) -> None:
        """Stop following."""
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following

    async def _topic_read(self, records: PolicyRecords) -> str | None:
        """Why the topic was not read to its end; `None` if it was."""
        if self._topic is None:
            kafka = self._settings.kafka
            self._topic = CompactedTopic(kafka, kafka.topics.policy, records.take)
            self._following = asyncio.create_task(self._topic.run(), name="policy topic")
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._topic.ready()
        except TimeoutError:
            return f"topic {self._settings.kafka.topics.policy} has not been read yet"
        return self._topic.trouble

    def _read(self, of_topic: PolicyRecords) -> InForce:
        from operators.operator import OperatorError
        from operators.policy import DEFAULT_POLICY

        records = of_topic.now
        settings = self._settings.policy
        file = settings.file or DEFAULT_POLICY
        try:
            content = file.read_bytes()
            state: object = (records, content, tuple(map(_written, settings.calibration_files())))
        except (OperatorError, OSError) as error:
            content, state = b"", object()
            logger.debug("what the policy is made of cannot be read: %r", error)
        if self._known is not None and self._known[0] == state:
            return self._known[1]
        found = of_topic.newest(records)
        source: Source = "shipped" if settings.file is None else "file"
        if found.place is not None or (found.policy is None and records):
            source = "topic"
            content = records[-1 if found.place is None else found.place]
        text = content.decode("utf-8", "replace")
        self._known = (state, InForce(found.policy, source, text, found.trouble))
        return self._known[1]


def _records_of(settings: Settings) -> PolicyRecords:
    # It imports torch, which takes seconds and is needed for little else here.
    from imagewire.policy_records import PolicyRecords

    return PolicyRecords(settings.policy)


def _written(file: Path) -> tuple[Path, int, int]:
    status = file.stat()
    return file, status.st_mtime_ns, status.st_size
