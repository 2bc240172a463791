"""Images on their way to Kafka, checked as the worker will read them.

What is accepted here is a record that no worker refuses: it is read by the worker's own code before
it is sent. And it is acknowledged only when every replica has it. An image without an id is given
one here, so that a record that the producer had to send twice is one image.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiokafka.errors
import msgspec
from aiokafka import AIOKafkaProducer

from imagewire.api.keys import Caller
from imagewire.api.problems import Problem, invalid, store_is_away
from operators.frame import Frame, Lane, Origin
from sinks.kafka.settings import KafkaSettings
from streams.records import DEFAULT_FEED, OWN_HEADER_PREFIX, frame_from_record

logger = logging.getLogger(__name__)

_RESERVED = frozenset({"image-id", "feed", "captured-at", "content-type", "lane", "file-name"})
_IMAGE_TYPE = re.compile(r"image/[A-Za-z0-9][A-Za-z0-9.+-]{0,60}")
_REFUSALS = (aiokafka.errors.KafkaError, OSError, TimeoutError)
_PATIENCE_SECONDS = 30.0
"""aiokafka gives up sooner, unless a broker answers that it cannot, again and again."""


@dataclass(frozen=True, slots=True)
class Publication:
    """A record that is ready to be sent."""

    image_id: str
    feed: str
    lane: Lane
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Published:
    """Where a publication is on Kafka."""

    image_id: str
    topic: str
    partition: int
    offset: int


def reference_publication(reference: Mapping[str, Any], caller: Caller, where: str) -> Publication:
    """The record of an image reference.

    Args:
        reference: as parsed from JSON.
        where: put before what is wrong with it.

    Raises:
        Problem: 422, no worker would take it; 403, its feed or id is not the caller's.
    """
    fields = dict(reference)
    if fields.get("feed") is None and (feed := _own_feed(caller)):
        fields["feed"] = feed
    given = fields.get("id") is not None
    if not given:
        fields["id"] = str(uuid.uuid4())
    try:
        value = msgspec.json.encode(fields)
    except (UnicodeEncodeError, TypeError, RecursionError) as error:
        raise invalid(f"this is no image reference: {error}", where=where) from error
    headers = (("content-type", b"application/json"),)
    return _checked(value, headers, None, caller, where, given)


def picture_publication(
    content: bytes,
    caller: Caller,
    *,
    image_id: str | None,
    feed: str | None,
    captured_at: str | None,
    lane: Lane | None,
    content_type: str | None,
    file_name: str | None,
    metadata: Mapping[str, Any],
) -> Publication:
    """The record of an image that comes itself.

    Args:
        content: the encoded image.
        metadata: kept as headers; what is no text is written as JSON.

    Raises:
        Problem: as `reference_publication`.
    """
    declared = (content_type or "").partition(";")[0].strip().lower()
    headers = [
        # The bytes decide what it is; the type only says that these are bytes of an image.
        (
            "content-type",
            declared if _IMAGE_TYPE.fullmatch(declared) else "application/octet-stream",
        ),
        ("feed", feed or _own_feed(caller) or DEFAULT_FEED),
        ("image-id", image_id or str(uuid.uuid4())),
    ]
    if captured_at:
        headers.append(("captured-at", captured_at))
    if lane is not None:
        headers.append(("lane", lane.value))
    if file_name:
        headers.append(("file-name", file_name))
    for name, value in metadata.items():
        lower = name.lower()
        if lower in _RESERVED or lower.startswith(OWN_HEADER_PREFIX):
            raise invalid(f"metadata may not hold '{name}', which has a meaning", where="metadata")
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        headers.append((name, text))
    encoded = tuple((name, text.encode("utf-8")) for name, text in headers)
    return _checked(content, encoded, lane, caller, "the form", bool(image_id))


def _own_feed(caller: Caller) -> str | None:
    """The feed of a caller who may fill one only."""
    return next(iter(caller.feeds)) if caller.feeds is not None and len(caller.feeds) == 1 else None


def _checked(
    value: bytes,
    headers: tuple[tuple[str, bytes], ...],
    lane: Lane | None,
    caller: Caller,
    where: str,
    id_given: bool,
) -> Publication:
    now = time.time_ns() // 1_000_000
    origin = Origin("", 0, 0, now, value=value, headers=headers)
    frame = frame_from_record(origin, lane or Lane.LIVE)
    if frame.failure is not None:
        raise Problem(
            422,
            "invalid-image",
            "The image cannot be published",
            f"{where}: {frame.failure.detail}",
            reason=frame.failure.reason,
            errors=[{"where": where, "what": frame.failure.detail}],
        )
    _require_own(caller, frame, id_given)
    return Publication(frame.image_id, frame.feed, frame.lane, value, headers)


def _require_own(caller: Caller, frame: Frame, id_given: bool) -> None:
    """Whoever is confined to feeds must not replace what stands under an id of another feed:
    vectors and verdicts are known by the id alone."""
    caller.require_feed(frame.feed)
    if caller.feeds is not None and id_given and not frame.image_id.startswith(f"{frame.feed}/"):
        raise Problem(
            403,
            "id-not-allowed",
            "That is not allowed",
            f"the key '{caller.name}' is confined to feeds, so ids of its own begin with the feed "
            f"and a slash, such as '{frame.feed}/000123'; or leave the id out",
        )


async def publish(
    producer: AIOKafkaProducer, settings: KafkaSettings, publications: Sequence[Publication]
) -> list[Published | Problem]:
    """Send records in their order and wait until every replica has them.

    Returns:
        For each where it is, or the problem with it: 413, the broker takes no record as large;
        503, it does not take records now. The image may have been published then; publishing it
        again under the same id is no second image.
    """
    topics = {Lane.LIVE: settings.topics.images, Lane.BULK: settings.topics.bulk}
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _PATIENCE_SECONDS
    results: list[asyncio.Future[Any] | BaseException] = []
    for publication in publications:
        try:
            async with asyncio.timeout_at(deadline):
                results.append(
                    await producer.send(
                        topics[publication.lane],
                        publication.value,
                        key=publication.feed.encode(),
                        timestamp_ms=time.time_ns() // 1_000_000,
                        headers=list(publication.headers),
                    )
                )
        except _REFUSALS as error:
            results.append(error)
    under_way = [each for each in results if isinstance(each, asyncio.Future)]
    if under_way:
        await asyncio.wait(under_way, timeout=max(0.0, deadline - loop.time()))
    return [
        _result(publication, each) for publication, each in zip(publications, results, strict=True)
    ]


def _result(
    publication: Publication, sent: asyncio.Future[Any] | BaseException
) -> Published | Problem:
    error: BaseException = sent if isinstance(sent, BaseException) else TimeoutError()
    if isinstance(sent, asyncio.Future) and sent.done():
        failure = sent.exception()
        if failure is None:
            stored = sent.result()
            return Published(publication.image_id, stored.topic, stored.partition, stored.offset)
        error = failure
    if isinstance(error, aiokafka.errors.MessageSizeTooLargeError):
        return Problem(
            413,
            "too-large-for-kafka",
            "The image is too large for Kafka",
            "the broker takes no record as large (message.max.bytes, kafka.max_record_bytes); "
            "publish a reference to the image instead",
        )
    logger.warning("an image could not be published: %r", error)
    problem = store_is_away(
        "Kafka", "Kafka does not take records at the moment; publish again with the same id"
    )
    problem.extra["image_id"] = publication.image_id
    return problem
