"""The demonstration: real photos through the whole embedded stack, and an account of each of them.

It is a user of Imagewire like any other: it publishes to Kafka, reads Kafka's verdicts, findings
and dead letters, asks ClickHouse and Qdrant, and then checks that no image was lost or doubled.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from imagewire.connection import pointed_at
from imagewire.demo.account import Account, take_account
from imagewire.demo.arrivals import Arrivals
from imagewire.demo.outcome import DeadLetter, Neighbour, SqlAnswer, Summary, Tile
from imagewire.demo.photos import DemoImage, make_demo_set
from imagewire.embedded.stack import Stack
from imagewire.publishing import Publication, Published, image_publisher
from imagewire.settings import Settings
from operators.frame import Lane
from sinks.clickhouse.reader import ClickHouseReader
from sinks.qdrant.reader import ImageNotFoundError, VectorReader

FEED = "demo"

QUESTIONS: tuple[tuple[str, str], ...] = (
    (
        "What is in the pictures?",
        "SELECT label, uniqExact(image_id) AS images, count() AS objects, "
        "round(avg(score), 2) AS mean_score\n"
        "FROM detections GROUP BY label ORDER BY images DESC, label LIMIT 6",
    ),
    (
        "Which pictures were not simply allowed, and why?",
        "SELECT image_id, verdict, rules, explanations\n"
        "FROM verdicts WHERE verdict != 'allow' ORDER BY verdict, image_id LIMIT 10",
    ),
    (
        "Where does it say something about a sale, a discount or money?",
        "SELECT image_id, text, round(score, 2) AS score\n"
        "FROM texts WHERE match(text, '(?i)sale|discount|money|total')\n"
        "ORDER BY image_id, line_index LIMIT 10",
    ),
)


@dataclass(frozen=True, slots=True)
class Demonstration:
    """Everything that the reports show."""

    tiles: Sequence[Tile]
    dead_letters: Sequence[DeadLetter]
    answers: Sequence[SqlAnswer]
    summary: Summary
    account: Account


class Progress(Protocol):
    """Whoever shows the demonstration's progress."""

    def doing(self, what: str) -> None:
        """A step without a measure has begun."""

    def counted(self, what: str, done: int, total: int) -> None:
        """So many of `total` are done."""


async def run_demonstration(
    directory: Path,
    settings: Settings,
    *,
    broker: str | None,
    progress: Progress,
    patience: float = 300.0,
) -> Demonstration:
    """Run it in `directory`, which is left for the caller to remove.

    Args:
        settings: client side; their addresses are replaced by the stack's.
        broker: see `imagewire.embedded.broker_choice.choose_broker`.
        patience: seconds without any arrival after which the missing images count as lost.

    Raises:
        DemoError, EmbeddedError: the demonstration cannot start.
    """
    progress.doing("making the pictures")
    photos = directory / "photos"
    images = await asyncio.to_thread(make_demo_set, photos)
    stack = Stack(directory / "data", broker, file_roots=[photos], report=progress.doing)
    try:
        await stack.start()
        await stack.start_worker()
        client = pointed_at(settings, stack.record)
        async with Arrivals(client.kafka) as arrivals:
            published = await _publish(images, client, progress)
            await _wait(arrivals, published, patience, progress)
        progress.doing("asking ClickHouse and Qdrant")
        account = await take_account(client, published, arrivals)
        tiles = await _tiles(images, published, arrivals, client)
        answers = await asyncio.to_thread(_answers, client)
        summary = _summary(stack, published, arrivals, account)
    finally:
        progress.doing("stopping")
        await stack.stop()
    return Demonstration(tiles, _dead_letters(arrivals), answers, summary, account)


async def _publish(
    images: Sequence[DemoImage], settings: Settings, progress: Progress
) -> dict[str, Published]:
    """Publish every picture, by turns as a reference and with its bytes; returns them by id."""
    published: dict[str, Published] = {}
    publications = [
        Publication(image.name, FEED, uri=image.path.as_uri())
        if index % 2
        else Publication(image.name, FEED, path=image.path)
        for index, image in enumerate(images)
    ]

    def done(publication: Publication, outcome: Published | Exception) -> None:
        if isinstance(outcome, Exception):
            raise outcome
        published[outcome.image_id] = outcome
        progress.counted("publishing", len(published), len(images))

    async with image_publisher(settings.kafka) as publisher:
        await publisher.publish_all(publications, Lane.LIVE, done)
    return published


async def _wait(
    arrivals: Arrivals, published: dict[str, Published], patience: float, progress: Progress
) -> None:
    """Until each image has its verdict and findings, or its dead letter."""
    wanted = published.keys()
    last = -1
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        settled = arrivals.settled() & wanted
        if len(settled) != last:
            last = len(settled)
            deadline = time.monotonic() + patience
            progress.counted("looking", last, len(wanted))
        if len(settled) == len(wanted):
            return
        await arrivals.next(within=1.0)


async def _tiles(
    images: Sequence[DemoImage],
    published: dict[str, Published],
    arrivals: Arrivals,
    settings: Settings,
) -> list[Tile]:
    tiles = []
    async with VectorReader(settings.qdrant) as vectors:
        for image in images:
            if image.name not in arrivals.findings:
                continue
            tiles.append(
                Tile(
                    name=image.name,
                    path=image.path,
                    findings=arrivals.findings[image.name],
                    kind=image.kind,
                    note=f"{image.origin}, {image.change}" if image.change else image.origin,
                    neighbour=await _neighbour(vectors, image.name),
                    latency_ms=arrivals.latency_ms(published[image.name]),
                )
            )
    return tiles


async def _neighbour(vectors: VectorReader, image_id: str) -> Neighbour | None:
    try:
        found = await vectors.search(image_id=image_id, limit=1)
    except ImageNotFoundError:
        return None  # the account counts it as missing
    return Neighbour(found[0].image_id, found[0].score) if found else None


def _answers(settings: Settings) -> list[SqlAnswer]:
    answers = []
    with ClickHouseReader(settings.clickhouse) as reader:
        for question, sql in QUESTIONS:
            table = reader.query(sql)
            rows = [tuple(row.values()) for row in table.to_pylist()]
            answers.append(SqlAnswer(question, sql, table.column_names, rows))
    return answers


def _dead_letters(arrivals: Arrivals) -> list[DeadLetter]:
    return [arrivals.dead_letters[name] for name in sorted(arrivals.dead_letters)]


def _summary(
    stack: Stack, published: dict[str, Published], arrivals: Arrivals, account: Account
) -> Summary:
    latencies = sorted(
        latency
        for record in published.values()
        if (latency := arrivals.latency_ms(record)) is not None
    )
    first = min(record.timestamp_ms for record in published.values())
    seconds = max((arrivals.last_timestamp_ms - first) / 1000, 0.001)
    models: dict[str, str] = {}
    policies: set[str] = set()
    for findings in arrivals.findings.values():
        models.update(findings.models)
        if findings.verdict is not None:
            policies.add(findings.verdict.policy)
    return Summary(
        published=len(published),
        findings=len(arrivals.findings),
        dead_letters=len(arrivals.dead_letters),
        lost=len(account.lost),
        doubled=len(account.doubled),
        images_per_second=round(len(published) / seconds, 2),
        latency_p50_ms=quantile(latencies, 0.5),
        latency_p99_ms=quantile(latencies, 0.99),
        broker=stack.broker.name,
        policy=", ".join(sorted(policies)),
        models=models,
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed; 0 of none."""
    if not ordered:
        return 0.0
    # 0.07 × 100 is a little more than 7 in floating point.
    rank = math.ceil(share * len(ordered) - 1e-9)
    return ordered[max(rank, 1) - 1]
