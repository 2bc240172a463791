"""The account: where did every published image end, and did any end twice?

Everything is asked of the stores themselves, after the fault: the tables as analysts read them, the
points by their payload, and the topics from their first record to their last.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from qdrant_client import models

from bench.chaos.producer import Kind, Load, Publication
from imagewire.settings import Settings
from sinks.clickhouse.reader import ClickHouseReader, QueryError
from sinks.kafka.records import DeadLetterHeader
from sinks.qdrant.connection import ERRORS as QDRANT_ERRORS
from sinks.qdrant.connection import connect

logger = logging.getLogger(__name__)

_ASK_AGAIN_SECONDS = 1.0
_SCROLL_POINTS = 1000


class _Identified(msgspec.Struct):
    image_id: str


@dataclass(slots=True)
class Letter:
    """The first dead letter of an image on Kafka."""

    stage: str
    reason: str
    at: float


@dataclass(slots=True)
class Findings:
    """What the stores hold of one feed, by image id."""

    rows: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    letters: dict[str, Letter] = field(default_factory=dict)
    letter_count: int = 0


@dataclass(slots=True)
class Account:
    """What became of a load.

    Attributes:
        lost: published ids that are neither in all of ClickHouse, Qdrant and the verdict and
            findings topics, nor a dead letter in both its topic and its table.
        doubled: ids with more than one row, more than one open failure, a row and an open failure,
            or more than one point; and ids that nobody published.
        repeats: output records on Kafka beyond one an image, which "at least once" allows.
        wrong: sentences on images that ended where they should not have.
    """

    published: int
    stored: int
    vectors: int
    verdicts: int
    dead_letters: int
    lost: list[str]
    doubled: list[str]
    repeats: int
    wrong: list[str]


async def settle(settings: Settings, load: Load, patience: float) -> Account:
    """Wait until nothing is missing, at most `patience` seconds without any progress."""
    deadline = time.monotonic() + patience
    fewest = None
    while True:
        try:
            account = judge(load, await read_back(settings, load.feed))
        except (QueryError, KafkaError, OSError, *QDRANT_ERRORS) as error:
            # A store that was broken may still be coming up.
            if time.monotonic() > deadline:
                raise
            logger.info("cannot account yet: %r", error)
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
            continue
        missing = len(account.lost)
        if fewest is None or missing < fewest:
            fewest, deadline = missing, time.monotonic() + patience
        if not missing or time.monotonic() > deadline:
            return account
        await asyncio.sleep(_ASK_AGAIN_SECONDS)


def judge(load: Load, found: Findings) -> Account:
    """Compare what was published with what the stores hold."""
    published = load.confirmed.keys()
    complete = (
        found.rows.keys() & found.points.keys() & found.verdicts.keys() & found.findings.keys()
    )
    buried = found.failures.keys() & found.letters.keys()
    doubled = {
        image_id
        for counts in (found.rows, found.failures, found.points)
        for image_id, count in counts.items()
        if count > 1
    }
    doubled |= found.rows.keys() & found.failures.keys()
    doubled |= (found.rows.keys() | found.failures.keys() | found.points.keys()) - published
    repeats = (
        (found.verdicts.total() - len(found.verdicts))
        + (found.findings.total() - len(found.findings))
        + (found.letter_count - len(found.letters))
    )
    return Account(
        published=len(published),
        stored=len(found.rows),
        vectors=len(found.points),
        verdicts=len(found.verdicts),
        dead_letters=len(found.failures.keys() | found.letters.keys()),
        lost=sorted(published - complete - buried),
        doubled=sorted(doubled),
        repeats=repeats,
        wrong=_wrong(load.confirmed, load.confirmed_at, found),
    )


def _wrong(
    published: Mapping[str, Publication], confirmed_at: Mapping[str, float], found: Findings
) -> list[str]:
    wrong = []
    for image_id, publication in published.items():
        letter = found.letters.get(image_id)
        if publication.kind is Kind.GOOD:
            if image_id in found.failures:
                said = f"{letter.stage}: {letter.reason}" if letter else "failed"
                wrong.append(f"{image_id} is good, but {said}")
            continue
        if letter is None:
            continue
        if letter.reason not in publication.expected_reasons:
            expected = " or ".join(publication.expected_reasons)
            wrong.append(f"{image_id}: reason '{letter.reason}', expected {expected}")
        if publication.within is not None:
            took = letter.at - confirmed_at[image_id]
            if took > publication.within:
                wrong.append(f"{image_id}: dead letter after {took:.1f} s")
    return wrong


async def read_back(settings: Settings, feed: str) -> Findings:
    """Everything that the stores hold of `feed`."""
    found = Findings()
    rows, failures = await asyncio.to_thread(_tables, settings, feed)
    found.rows, found.failures = rows, failures
    found.points = await _points(settings, feed)
    await _read_topics(settings, feed, found)
    return found


def _tables(settings: Settings, feed: str) -> tuple[Counter[str], Counter[str]]:
    counters = []
    with ClickHouseReader(settings.clickhouse) as reader:
        for view in ("images", "failures"):
            table = reader.query(
                f"SELECT image_id FROM {view} WHERE feed = {{feed:String}}", {"feed": feed}
            )
            counters.append(Counter(table.column("image_id").to_pylist()))
    return counters[0], counters[1]


async def _points(settings: Settings, feed: str) -> Counter[str]:
    client = connect(settings.qdrant)
    found: Counter[str] = Counter()
    of_feed = models.Filter(
        must=[models.FieldCondition(key="feed", match=models.MatchValue(value=feed))]
    )
    try:
        following = None
        while True:
            points, following = await client.scroll(
                settings.qdrant.collection,
                scroll_filter=of_feed,
                limit=_SCROLL_POINTS,
                offset=following,
                with_payload=["image_id"],
                with_vectors=False,
            )
            found.update(str((point.payload or {}).get("image_id")) for point in points)
            if following is None:
                return found
    finally:
        await client.close()


async def _read_topics(settings: Settings, feed: str, found: Findings) -> None:
    """Read verdicts, findings and dead letters from the first to the last record of now."""
    topics = settings.kafka.topics
    consumer = AIOKafkaConsumer(
        topics.verdicts,
        topics.findings,
        topics.failed,
        auto_offset_reset="earliest",
        **settings.kafka.client_options(),
    )
    prefix = f"{feed}-"
    await consumer.start()
    try:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        left = {partition for partition, end in ends.items() if end > 0}
        while left:
            batches = await consumer.getmany(timeout_ms=500, max_records=5000)
            for records in batches.values():
                for record in records:
                    _take(record, settings, prefix, found)
            left = {tp for tp in left if await consumer.position(tp) < ends[tp]}
    finally:
        await consumer.stop()


def _take(record: Any, settings: Settings, prefix: str, found: Findings) -> None:
    topics = settings.kafka.topics
    topic, value = record.topic, record.value
    if topic == topics.failed:
        headers = {name: text.decode() for name, text in record.headers}
        image_id = headers[DeadLetterHeader.IMAGE_ID]
        if image_id.startswith(prefix):
            found.letter_count += 1
            found.letters.setdefault(
                image_id,
                Letter(
                    headers[DeadLetterHeader.STAGE],
                    headers[DeadLetterHeader.REASON],
                    record.timestamp / 1000,
                ),
            )
        return
    image_id = msgspec.json.decode(value, type=_Identified).image_id
    if image_id.startswith(prefix):
        counts = found.verdicts if topic == topics.verdicts else found.findings
        counts[image_id] += 1
