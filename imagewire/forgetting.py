"""Erases images from everything that Imagewire keeps, and says what was erased where.

First a tombstone is published for each image, content or feed, so that nothing comes back: workers
drop what it covers, replays and repeated deliveries included. Then rows and vectors are erased, and
looked for again, since a write may have been under way. Each store is dealt with by itself: where
one is away the others are done all the same, the report says so, and the command can be run again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from imagewire.connection import Connection
from imagewire.settings import Settings
from sinks.clickhouse.erasing import ClickHouseEraser, Selection
from sinks.kafka.settings import KafkaSettings
from sinks.qdrant.erasing import VectorEraser
from sinks.sink import SinkError, TransientSinkError
from streams.reviews_overrides import override_keys
from streams.tombstones import Kind, tombstone_key, tombstone_record

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
        image_ids: the images that the selection named or led to.
        kept: topics that keep records about them until these expire, and for how long: in
            milliseconds, -1 for ever, `None` if the broker does not say.
    """

    image_ids: list[str]
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
    report = ForgetReport(list(selection.image_ids))
    looked_up: str | None = None
    decided: list[str] = []
    if (selection.content_ids or selection.feeds) and settings.clickhouse.enabled:
        try:
            found, decided = await asyncio.to_thread(_image_ids, settings, selection)
            report.image_ids = sorted({*selection.image_ids, *found})
        except SinkError as error:
            looked_up = str(error)
    wide = replace(selection, image_ids=report.image_ids)
    if not dry_run:
        report_step("publishing tombstones")
        report.erased += await _publish(settings.kafka, selection, report.image_ids, decided)
        report_step("waiting for workers to learn of them")
        await asyncio.sleep(settle)
    if looked_up is not None:
        report.erased.append(Erased("clickhouse", "images_raw", 0, looked_up))
    report_step("counting" if dry_run else "erasing rows and vectors")
    totals: dict[tuple[str, str], int] = {}
    for look in range(1 if dry_run else _LOOKS):
        found_now = await _stores(settings, wide, dry_run=dry_run)
        errors = [each for each in found_now if each.error is not None]
        for each in found_now:
            if each.error is None:
                key = (each.store, each.place)
                totals[key] = totals.get(key, 0) + each.count
        if errors:
            report.erased += errors
            break
        if look and not any(each.count for each in found_now):
            break
        if not dry_run and look + 1 < _LOOKS:
            # A write that was under way when its tombstone came may end only now.
            await asyncio.sleep(min(1.0, settle))
    report.erased += [Erased(store, place, count) for (store, place), count in totals.items()]
    report.kept = await _kept(settings.kafka)
    return report


async def lift(settings: Settings, selection: Selection) -> int:
    """Take tombstones back, so that what they cover is taken again when it comes; returns how many
    were named. What was erased stays erased.

    Raises:
        TransientSinkError: the broker does not take it.
    """
    keys = [
        tombstone_key(kind, name)
        for kind, names in _named(selection, selection.image_ids).items()
        for name in names
    ]
    await _send(settings.kafka, [(settings.kafka.topics.forgotten, key, None) for key in keys])
    return len(keys)


def _named(selection: Selection, image_ids: Sequence[str]) -> dict[Kind, Sequence[str]]:
    return {"image": image_ids, "content": selection.content_ids, "feed": selection.feeds}


def _image_ids(settings: Settings, selection: Selection) -> tuple[list[str], list[str]]:
    """The images with the contents that are meant, and those of the feeds that were decided."""
    eraser = ClickHouseEraser(settings.clickhouse)
    try:
        return (
            eraser.image_ids_of(selection.content_ids),
            eraser.decided_images_of(selection.feeds),
        )
    finally:
        eraser.close()


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
                points = await act(selection.image_ids, selection.content_ids, selection.feeds)
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


async def _publish(
    kafka: KafkaSettings, selection: Selection, image_ids: list[str], decided: list[str]
) -> list[Erased]:
    """Publish tombstones, and take the images' decisions off the compacted topic, which would keep
    their ids for ever."""
    now = time.time_ns() // 1_000_000
    tombstones = [
        tombstone_record(kind, name, now)
        for kind, names in _named(selection, image_ids).items()
        for name in names
    ]
    keys = [key for each in sorted({*image_ids, *decided}) for key in override_keys(each)]
    keys += [key for each in selection.content_ids for key in override_keys(content_id=each)]
    # Tombstones first: they alone keep things from coming back.
    await _send(kafka, [(kafka.topics.forgotten, key, value) for key, value in tombstones])
    await _send(kafka, [(kafka.topics.overrides, key, None) for key in keys])
    return [
        Erased("kafka", kafka.topics.forgotten, len(tombstones)),
        Erased("kafka", kafka.topics.overrides, len(keys)),
    ]


async def _send(kafka: KafkaSettings, records: Sequence[tuple[str, bytes, bytes | None]]) -> None:
    producer = AIOKafkaProducer(**kafka.producer_options())
    try:
        await producer.start()
        sent = [await producer.send(topic, value, key=key) for topic, key, value in records]
        await asyncio.gather(*sent)
    except (KafkaError, OSError) as error:
        raise TransientSinkError(
            f"the broker at {kafka.bootstrap_servers} does not take tombstones: {error!r}; nothing "
            "was erased, run it again"
        ) from error
    finally:
        await producer.stop()


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
