"""Erases images from everything that Imagewire keeps, and says what was erased where.

First a tombstone is published for each image, content or feed, so that nothing comes back: workers
drop what it covers, replays and repeated deliveries included. Then rows and vectors are erased, and
looked for again, since a write may have been under way. Each store is dealt with by itself: where
one is away the others are done all the same, the report says so, and the command can be run again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from imagewire.connection import Connection
from imagewire.forgetting_tombstones import (
    AT_ONCE,
    IdsOnDisk,
    TombstonePublisher,
    TombstonesRefusedError,
    tombstone_publisher,
)
from imagewire.settings import Settings
from sinks.clickhouse.erasing import ClickHouseEraser, Selection
from sinks.kafka.settings import KafkaSettings
from sinks.qdrant.erasing import VectorEraser
from sinks.sink import SinkError

SETTLE_SECONDS = 3.0
"""Between the tombstones and the erasure, for workers to learn of them and end a write."""
_LOOKS = 3


@dataclass(frozen=True, slots=True)
class Erased:
    """What became of one place.

    Attributes:
        store: `clickhouse`, `qdrant` or `kafka`.
        place: a table, a collection or a topic.
        count: rows, points or records that were erased, or would be.
        error: why nothing more is known of it.
    """

    store: str
    place: str
    count: int = 0
    error: str | None = None


@dataclass(slots=True)
class ForgetReport:
    """What was erased where.

    Attributes:
        images: how many the selection named or led to.
        image_ids: those of them, at most a thousand.
        kept: topics that keep records about them until these expire, and for how long: in
            milliseconds, -1 for ever, `None` if the broker does not say.
    """

    images: int = 0
    image_ids: list[str] = field(default_factory=list)
    erased: list[Erased] = field(default_factory=list)
    kept: dict[str, int | None] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return any(each.error is not None for each in self.erased)


def for_writing(connection: Connection) -> Settings:
    """The settings of a user that may write: of a running stack, the one that its workers are."""
    stack, settings = connection.stack, connection.settings
    if stack is None:
        return settings
    values = settings.clickhouse.model_dump()
    values |= {"username": stack.writer_user, "password": stack.writer_password}
    clickhouse = type(settings.clickhouse)(**values)
    return settings.model_copy(update={"clickhouse": clickhouse})


async def forget(
    settings: Settings,
    selection: Selection,
    *,
    dry_run: bool = False,
    settle: float = SETTLE_SECONDS,
    report_step: Callable[[str], object] = lambda text: None,
) -> ForgetReport:
    """Erase what `selection` means.

    Args:
        settings: of users that may write.
        dry_run: count what would be erased, and erase and publish nothing.
        settle: seconds between the tombstones and the erasure.
        report_step: told in words what is being done.

    Raises:
        TransientSinkError: the tombstones cannot be published, so nothing was erased; or, in a dry
            run, a store is away.
    """
    with IdsOnDisk() as found:
        report = ForgetReport()
        looked_up = await _tombstones(settings, selection, found, report, dry_run, report_step)
        report.images = len(selection.image_ids) + len(found)
        report.image_ids = [*selection.image_ids, *found.first][: IdsOnDisk.SHOWN]
        if not dry_run:
            report_step("waiting for workers to learn of them")
            await asyncio.sleep(settle)
        if looked_up is not None:
            report.erased.append(Erased("clickhouse", "images_raw", 0, looked_up))
        report_step("counting" if dry_run else "erasing rows and vectors")
        totals: dict[tuple[str, str], int] = {}
        for look in range(1 if dry_run else _LOOKS):
            news, errors = 0, []
            for part in _parts(selection, found, counted=dry_run):
                for each in await _stores(settings, part, dry_run=dry_run):
                    if each.error is None:
                        key = (each.store, each.place)
                        totals[key] = totals.get(key, 0) + each.count
                        news += each.count
                    else:
                        errors.append(each)
                if errors:
                    break
            report.erased += errors
            if errors or (look and not news):
                break
            if not dry_run and look + 1 < _LOOKS:
                # A write that was under way when its tombstone came may end only now.
                await asyncio.sleep(min(1.0, settle))
    report.erased += [Erased(store, place, count) for (store, place), count in totals.items()]
    report.kept = await _kept(settings.kafka)
    return report


async def _tombstones(
    settings: Settings,
    selection: Selection,
    found: IdsOnDisk,
    report: ForgetReport,
    dry_run: bool,
    report_step: Callable[[str], object],
) -> str | None:
    """Publish the tombstones of a selection and of the images that it leads to, which are put into
    `found`; why they could not all be looked up, if so."""
    if dry_run:
        return await _look_up(settings, selection, found, None)
    report_step("publishing tombstones")
    async with tombstone_publisher(settings.kafka) as publisher:
        await publisher.forget(selection)
        trouble = await _look_up(settings, selection, found, publisher)
    topics = settings.kafka.topics
    report.erased += [
        Erased("kafka", topics.forgotten, publisher.tombstones),
        Erased("kafka", topics.overrides, publisher.withdrawn),
    ]
    return trouble


async def _look_up(
    settings: Settings,
    selection: Selection,
    found: IdsOnDisk,
    publisher: TombstonePublisher | None,
) -> str | None:
    """Put the images with the contents that are meant into `found`, and tell the publisher of them,
    and of the images of the feeds over which people decided; why not, if ClickHouse is away."""
    if not settings.clickhouse.enabled or not (selection.content_ids or selection.feeds):
        return None
    named = set(selection.image_ids)
    eraser = ClickHouseEraser(settings.clickhouse)
    try:
        async for ids in _pages(eraser.image_ids_of, selection.content_ids):
            new = [each for each in ids if each not in named]
            found.add(new)
            if publisher is not None:
                await publisher.forget(Selection(new))
        if publisher is not None:
            async for ids in _pages(eraser.decided_images_of, selection.feeds):
                await publisher.withdraw_decisions(ids)
    except TombstonesRefusedError:
        raise
    except SinkError as error:
        return str(error)
    finally:
        await asyncio.to_thread(eraser.close)
    return None


async def _pages(
    ids_of: Callable[[Sequence[str], str, int], list[str]], names: Sequence[str]
) -> AsyncIterator[list[str]]:
    after = ""
    while ids := await asyncio.to_thread(ids_of, names, after, AT_ONCE):
        yield ids
        after = ids[-1]


def _parts(selection: Selection, found: IdsOnDisk, *, counted: bool) -> Iterator[Selection]:
    """What is to be erased, in parts that fit into memory: first by content and feed, which is one
    step however many images there are, then what is left of the images by their ids.

    Args:
        counted: nothing is erased in between, so what the first step counted is left out.
    """
    yield selection
    for ids in found.pages():
        yield Selection(ids, without=selection.content_ids if counted else ())


async def lift(settings: Settings, selection: Selection) -> int:
    """Take tombstones back, so that what they cover is taken again when it comes; returns how many
    were named. What was erased stays erased.

    Raises:
        TransientSinkError: the broker does not take it.
    """
    async with tombstone_publisher(settings.kafka) as publisher:
        return await publisher.lift(selection)


async def _stores(settings: Settings, selection: Selection, *, dry_run: bool) -> list[Erased]:
    found: list[Erased] = []
    if settings.clickhouse.enabled:
        try:
            rows = await asyncio.to_thread(_rows, settings, selection, dry_run=dry_run)
            found += [Erased("clickhouse", table, count) for table, count in rows.items()]
        except SinkError as error:
            found.append(Erased("clickhouse", settings.clickhouse.database, 0, str(error)))
    if settings.qdrant.enabled:
        try:
            async with VectorEraser(settings.qdrant) as vectors:
                act = vectors.count if dry_run else vectors.erase
                ids, contents = selection.image_ids, selection.content_ids
                points = await act(ids, contents, selection.feeds, selection.without)
            found += [Erased("qdrant", name, count) for name, count in points.items()]
        except SinkError as error:
            found.append(Erased("qdrant", settings.qdrant.collection, 0, str(error)))
    return found


def _rows(settings: Settings, selection: Selection, *, dry_run: bool) -> dict[str, int]:
    eraser = ClickHouseEraser(settings.clickhouse)
    try:
        return eraser.count(selection) if dry_run else eraser.erase(selection)
    finally:
        eraser.close()


async def _kept(kafka: KafkaSettings) -> dict[str, int | None]:
    """Topics that keep what they have until it expires, and their retention in milliseconds."""
    topics = kafka.topics
    names = [
        *(topics.images, topics.bulk, topics.findings, topics.verdicts),
        *(topics.review, topics.reviews, topics.claims, topics.failed),
    ]
    kept: dict[str, int | None] = dict.fromkeys(names)
    client = AIOKafkaAdminClient(**kafka.client_options())
    try:
        async with asyncio.timeout(10.0):
            await client.start()
            resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
            for answer in await client.describe_configs(resources):
                for _, _, _, name, entries in answer.resources:
                    for entry in entries:
                        if entry[0] == "retention.ms" and name in kept:
                            kept[name] = int(entry[1])
    except (KafkaError, OSError, TimeoutError, ValueError, TypeError, AttributeError):
        return kept  # tansu does not say; the report says that it is not known
    finally:
        await client.close()
    return kept
