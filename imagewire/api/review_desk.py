"""The queue of images that wait for people, as several reviewers work it through one process.

Claims are kept open and followed, where the command line opens them anew for each image. What was
decided here in the last minutes is remembered, since ClickHouse learns of it through Kafka and a
worker only: a decided image does not come again, and a decision can be taken back at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from imagewire.api.waiting import turn_of
from imagewire.reviews_claims import Claims, claims
from imagewire.reviews_queue import (
    claim_oldest,
    known_images,
    last_decisions,
    new_decision,
    queue_length,
    waiting,
)
from imagewire.settings import Settings
from sinks.clickhouse.reader import ClickHouseReader
from sinks.sink import TransientSinkError
from streams.reviews import Choice, ReviewDecision

logger = logging.getLogger(__name__)


_REMEMBERED_SECONDS = 600.0
_MOST_REMEMBERED = 5_000
_PAGE_OF_CANDIDATES = 50
_AFTER_ALL = 1e12
"""Later than any time in Unix seconds that ClickHouse keeps."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a reviewer asks for: one decision over one image."""

    image_id: str
    choice: Choice
    reason: str = ""
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TakenBack:
    """A decision that was taken back. `decision`: what it had been."""

    image_id: str
    decision: str
    decision_id: str


@dataclass(slots=True)
class _Recent:
    decision: ReviewDecision
    at: float


class ReviewDesk:
    """One for each process of the API.

    Args:
        ask: runs a question to ClickHouse in a thread.
        producer: gives the producer to publish with.
    """

    def __init__(
        self,
        settings: Settings,
        ask: Callable[[Callable[[ClickHouseReader], Any]], Awaitable[Any]],
        producer: Callable[[], Awaitable[AIOKafkaProducer]],
    ) -> None:
        self._settings = settings
        self._ask = ask
        self._producer = producer
        self._claims: Claims | None = None
        self._opened = AsyncExitStack()
        self._turn = asyncio.Lock()
        self._recent: OrderedDict[str, _Recent] = OrderedDict()

    async def close(self) -> None:
        """Let go of the claims."""
        async with self._turn:
            await self._let_go()

    async def queue(
        self, feeds: Sequence[str], why: str, limit: int, after: tuple[int, str] | None = None
    ) -> list[dict[str, Any]]:
        """The images that wait longest, with who holds each (`claimed_by`).

        Raises:
            QueryError
        """
        found: list[dict[str, Any]] = await self._ask(
            lambda reader: waiting(reader, feeds, why, self._decided(), limit, after)
        )
        try:
            async with self._held() as held:
                await held.read()
                return [image | {"claimed_by": held.held_by(image["image_id"])} for image in found]
        except TransientSinkError as error:
            logger.warning("who holds which image is not known: %s", error)
        return [image | {"claimed_by": None} for image in found]

    async def next(
        self, reviewer: str, feeds: Sequence[str], why: str, skip: Sequence[str] = ()
    ) -> dict[str, Any] | None:
        """The image that has waited longest, claimed for `reviewer`; `None` if there is none.

        Args:
            skip: ids to pass over; a claim on one of them stays until its lease ends.

        Raises:
            QueryError, TransientSinkError
        """

        async def look(busy: Sequence[str]) -> list[dict[str, Any]]:
            ids = list(busy)
            found: list[dict[str, Any]] = await self._ask(
                lambda reader: waiting(reader, feeds, why, ids, _PAGE_OF_CANDIDATES)
            )
            return found

        async with self._held() as held:
            await held.read()
            lease = self._settings.reviews.lease
            found = await claim_oldest(held, look, reviewer, lease, [*self._decided(), *skip])
            return None if found is None else found | {"claimed_by": reviewer}

    async def length(self, feeds: Sequence[str]) -> dict[str, Any]:
        """How many images wait, as ClickHouse knows it.

        Raises:
            QueryError
        """
        found: dict[str, Any] = await self._ask(lambda reader: queue_length(reader, feeds))
        return found

    async def decide(
        self, reviewer: str, asked: Sequence[Asked], feeds: Sequence[str]
    ) -> tuple[list[ReviewDecision], list[str]]:
        """Decide over images. A claim stays, which keeps its image from others until the decision
        is stored.

        Args:
            feeds: those that the reviewer may see; empty for all.

        Returns:
            The decisions, and the ids of images that are not there.

        Raises:
            QueryError, TransientSinkError
            msgspec.ValidationError: a name, reason or label is too long.
        """
        ids = [each.image_id for each in asked]
        known: Mapping[str, dict[str, Any]] = await self._ask(
            lambda reader: known_images(reader, ids, feeds)
        )
        decisions = [
            new_decision(
                each.image_id,
                each.choice,
                reviewer,
                known[each.image_id],
                each.reason,
                each.labels,
            )
            for each in asked
            if each.image_id in known
        ]
        await self._publish(decisions)
        return decisions, [image_id for image_id in ids if image_id not in known]

    async def undo(
        self, reviewer: str, image_ids: Sequence[str], feeds: Sequence[str]
    ) -> list[TakenBack]:
        """Take back the reviewer's last decision on each of these images; the last of all if none
        is named. What was taken back already is left out.

        Raises:
            QueryError, TransientSinkError
        """
        stored: list[dict[str, Any]] = await self._ask(
            lambda reader: last_decisions(reader, reviewer, image_ids)
        )
        last = {row["image_id"]: ReviewDecision(reviewer=reviewer, **_known(row)) for row in stored}
        order = {row["image_id"]: row["decided_at"].timestamp() for row in stored}
        for number, (image_id, recent) in enumerate(self._remembered()):
            wanted = image_id in image_ids if image_ids else True
            if wanted and recent.reviewer == reviewer:
                last[image_id] = recent
                order[image_id] = _AFTER_ALL + number
        newest = sorted(last, key=lambda image_id: order[image_id])
        chosen = [last[each] for each in (newest if image_ids else newest[-1:])]
        standing = [
            decision
            for decision in chosen
            if decision.decision != "withdraw" and (not feeds or decision.feed in feeds)
        ]
        withdrawals = [
            new_decision(
                decision.image_id,
                "withdraw",
                reviewer,
                {"content_id": decision.content_id, "feed": decision.feed},
                "undone",
            )
            for decision in standing
        ]
        await self._publish(withdrawals)
        try:
            async with self._held() as held:
                for decision in standing:
                    await held.give_back(decision.image_id, reviewer)
        except TransientSinkError as error:
            logger.warning("claims end with their leases only: %s", error)
        return [
            TakenBack(each.image_id, each.decision, each.decision_id or "") for each in standing
        ]

    async def _publish(self, decisions: Sequence[ReviewDecision]) -> None:
        if not decisions:
            return
        producer = await self._producer()
        topic = self._settings.kafka.topics.reviews
        try:
            sent = [
                await producer.send(topic, msgspec.json.encode(each), key=each.image_id.encode())
                for each in decisions
            ]
            await asyncio.gather(*sent)
        except (KafkaError, OSError) as error:
            raise TransientSinkError(
                f"the broker at {self._settings.kafka.bootstrap_servers} does not take the "
                f"decisions: {error!r}; some may have been taken"
            ) from error
        for each in decisions:
            self._recent.pop(each.image_id, None)
            self._recent[each.image_id] = _Recent(each, time.monotonic())
        while len(self._recent) > _MOST_REMEMBERED:
            self._recent.popitem(last=False)

    def _remembered(self) -> list[tuple[str, ReviewDecision]]:
        """What was decided here of late, the latest last."""
        while self._recent:
            image_id, oldest = next(iter(self._recent.items()))
            if time.monotonic() - oldest.at < _REMEMBERED_SECONDS:
                break
            del self._recent[image_id]
        return [(image_id, recent.decision) for image_id, recent in self._recent.items()]

    def _decided(self) -> list[str]:
        """Images that need no longer wait, whatever ClickHouse says."""
        return [key for key, decision in self._remembered() if decision.decision != "withdraw"]

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[Claims]:
        """The claims, for one caller at a time; opened anew after an error."""
        async with turn_of(self._turn, "Kafka"):
            if self._claims is None:
                self._claims = await self._opened.enter_async_context(claims(self._settings.kafka))
            try:
                yield self._claims
            except BaseException:
                # Cut off in the middle, it may not know where it stands.
                await asyncio.shield(self._let_go())
                raise

    async def _let_go(self) -> None:
        self._claims = None
        opened, self._opened = self._opened, AsyncExitStack()
        await opened.aclose()


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "image_id": row["image_id"],
        "decision": row["decision"],
        "content_id": row["content_id"] or None,
        "feed": row["feed"],
        "decision_id": row["decision_id"],
    }
