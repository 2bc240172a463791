"""Which policy is in force, as a worker with the same settings finds it: topic first, then file.

The topic is followed from the first question on, so that a policy that was just published is shown,
and one that workers cannot use is shown with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from imagewire.settings import Settings
from streams.compacted_topic import CompactedTopic

if TYPE_CHECKING:
    from operators.policy import Policy

_PATIENCE_SECONDS = 5.0

Source = Literal["topic", "file", "shipped"]


@dataclass(frozen=True, slots=True)
class InForce:
    """A policy, where it came from, and its text.

    Attributes:
        policy: `None` if it cannot be used; `trouble` says why.
        trouble: also that the topic could not be read, so that the file was.
    """

    policy: Policy | None
    source: Source
    text: str
    trouble: str | None


class PolicyInForce:
    """Follows one policy for as long as the process lives. Nothing is read before it is asked."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._published: bytes | None = None
        self._topic: CompactedTopic | None = None
        self._following: asyncio.Task[None] | None = None
        self._known: tuple[object, InForce] | None = None

    async def now(self) -> InForce:
        """The policy in force at this moment."""
        trouble = await self._topic_read() if self._settings.policy.follow else None
        published = self._published
        found = await asyncio.to_thread(self._read, published)
        if trouble is not None and found.trouble is None:
            return InForce(found.policy, found.source, found.text, trouble)
        return found

    async def close(self) -> None:
        """Stop following."""
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following

    async def _topic_read(self) -> str | None:
        """Why the topic was not read to its end; `None` if it was."""
        if self._topic is None:
            kafka = self._settings.kafka
            self._topic = CompactedTopic(kafka, kafka.topics.policy, self._take)
            self._following = asyncio.create_task(self._topic.run(), name="policy topic")
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._topic.ready()
        except TimeoutError:
            return f"topic {self._settings.kafka.topics.policy} has not been read yet"
        return self._topic.trouble

    def _take(self, key: bytes | None, value: bytes | None) -> None:
        if key == self._settings.policy.name.encode():
            self._published = value

    def _read(self, published: bytes | None) -> InForce:
        from operators.calibration import read_calibration
        from operators.operator import OperatorError
        from operators.policy import DEFAULT_POLICY, Policy

        settings = self._settings.policy
        source: Source = "shipped" if settings.file is None else "file"
        name = "default" if settings.file is None else settings.file.stem
        text = ""
        try:
            if published is not None:
                content, source, name = published, "topic", settings.name
            else:
                content = (settings.file or DEFAULT_POLICY).read_bytes()
            state = (content, source)
            if self._known is not None and self._known[0] == state:
                return self._known[1]
            text = content.decode("utf-8", "replace")
            calibrations = [read_calibration(file) for file in settings.calibrations]
            found = InForce(Policy.read(content, name, name, calibrations), source, text, None)
            self._known = (state, found)
            return found
        except (OperatorError, OSError) as error:
            return InForce(None, source, text, f"{type(error).__name__}: {error}")
