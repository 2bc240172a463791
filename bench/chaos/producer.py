"""A producer that keeps publishing known images, whatever happens to the rest.

It waits for every replica and is idempotent. An image that the broker did not confirm is published
again under the same id until it is, as a careful producer does; so what the broker took twice must
still be stored once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from aiokafka import AIOKafkaProducer, errors

from bench.chaos import pictures
from bench.chaos.reference_server import ReferenceServers

logger = logging.getLogger(__name__)


class Kind(StrEnum):
    """What kind of image was published, and so what must become of it."""

    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Publication:
    """One record for the topic of images.

    Attributes:
        expected_reason: of its dead letter, if it must become one; any of these.
        within: seconds from publishing within which that letter must be written.
    """

    image_id: str
    value: bytes
    headers: list[tuple[str, bytes]]
    kind: Kind = Kind.GOOD
    expected_reasons: tuple[str, ...] = ()
    within: float | None = None


@dataclass(slots=True)
class Load:
    """What was published of one feed.

    Attributes:
        confirmed: by image id, those that the broker took.
        sent_again: publications that the broker had not confirmed at first.
        began, ended: Unix times of the first and the last confirmation.
    """

    feed: str
    confirmed: dict[str, Publication] = field(default_factory=dict)
    confirmed_at: dict[str, float] = field(default_factory=dict)
    sent_again: int = 0


class Images:
    """Endless good pictures of one feed: inline, by file and by HTTP in turns."""

    def __init__(self, feed: str, folder: Path, servers: ReferenceServers, first: int = 0) -> None:
        self.feed = feed
        self._folder = folder
        self._servers = servers
        self._numbers = itertools.count(first)

    def __iter__(self) -> Iterator[Publication]:
        return self

    def __next__(self) -> Publication:
        number = next(self._numbers)
        image_id = f"{self.feed}-{number:06d}"
        # Half of them say when they were taken; the others take their event time from Kafka.
        captured_at = int(time.time() * 1000) if number % 2 else None
        match number % 4:
            case 0 | 1:
                return inline(image_id, self.feed, pictures.jpeg(number), captured_at=captured_at)
            case 2:
                file = self._folder / f"{image_id}.jpg"
                file.write_bytes(pictures.jpeg(number))
                uri = file.as_uri()
            case _:
                uri = self._servers.picture(number)
        return reference(image_id, self.feed, uri, captured_at=captured_at)


def inline(
    image_id: str,
    feed: str,
    content: bytes,
    *,
    captured_at: int | None = None,
    expected_reasons: tuple[str, ...] = (),
) -> Publication:
    """The bytes themselves."""
    headers = [
        ("image-id", image_id.encode()),
        ("feed", feed.encode()),
        ("content-type", b"image/jpeg"),
    ]
    if captured_at is not None:
        headers.append(("captured-at", str(captured_at).encode()))
    kind = Kind.BAD if expected_reasons else Kind.GOOD
    return Publication(image_id, content, headers, kind, expected_reasons)


def reference(
    image_id: str,
    feed: str,
    uri: str,
    *,
    captured_at: int | None = None,
    expected_reasons: tuple[str, ...] = (),
    within: float | None = None,
) -> Publication:
    """A JSON record that says where the bytes are."""
    fields = {"id": image_id, "uri": uri, "feed": feed}
    kind = Kind.BAD if expected_reasons else Kind.GOOD
    value = msgspec.json.encode(fields | ({"captured_at": captured_at} if captured_at else {}))
    return Publication(image_id, value, [], kind, expected_reasons, within)


class Producer:
    """Publishes to one topic. An async context manager."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self._topic = topic
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap_servers,
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            # As long as the broker is away at most.
            request_timeout_ms=60_000,
        )

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(errors.KafkaError, TimeoutError):
            async with asyncio.timeout(10):
                await self._producer.stop()

    async def publish(self, load: Load, publication: Publication) -> None:
        """Send until the broker has confirmed."""
        while True:
            try:
                future = await self._producer.send(
                    self._topic,
                    publication.value,
                    key=publication.image_id.encode(),
                    headers=publication.headers,
                )
                await future
            except (errors.KafkaError, OSError) as error:
                logger.info("%s is published again: %r", publication.image_id, error)
                load.sent_again += 1
                await asyncio.sleep(0.5)
                continue
            load.confirmed[publication.image_id] = publication
            load.confirmed_at[publication.image_id] = time.time()
            return

    async def publish_all(self, load: Load, publications: list[Publication]) -> None:
        """Send many as fast as the broker takes them."""
        window = asyncio.Semaphore(64)

        async def one(publication: Publication) -> None:
            async with window:
                await self.publish(load, publication)

        async with asyncio.TaskGroup() as group:
            for publication in publications:
                group.create_task(one(publication))


class SteadyLoad:
    """Publishes `images` at `rate` a second from entering to leaving.

    Publications that a missing broker holds up are all sent before it leaves.
    """

    def __init__(
        self,
        producer: Producer,
        images: Images,
        rate: Callable[[], float],
    ) -> None:
        self.load = Load(images.feed)
        self._producer = producer
        self._images = images
        self._rate = rate
        self._task: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Load:
        self._task = asyncio.create_task(self._run())
        return self.load

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        if error is not None:
            for task in self._sending:
                task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=error is not None)

    async def _run(self) -> None:
        due = time.monotonic()
        while True:
            due = max(due + 1 / self._rate(), time.monotonic() - 1.0)
            await asyncio.sleep(max(due - time.monotonic(), 0))
            if len(self._sending) > 2000:
                continue  # the broker is away
            task = asyncio.create_task(self._producer.publish(self.load, next(self._images)))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
