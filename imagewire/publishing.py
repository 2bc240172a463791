"""Publishes images to Kafka as a producer would: references, or the bytes themselves."""

from __future__ import annotations

import asyncio
import os
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiokafka.errors
import msgspec
from aiokafka import AIOKafkaProducer

from operators.frame import NAMESPACE, Lane
from sinks.kafka.reachable import connection_error
from sinks.kafka.settings import KafkaSettings
from sinks.sink import TransientSinkError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
)
"""Suffixes that count when a folder is published; a file that is named is always published."""

CONTENT_TYPES = MappingProxyType(
    {
        ".jpg": "image/jpeg",
        ".jpeg": "image/jpeg",
        ".jpe": "image/jpeg",
        ".tif": "image/tiff",
        **{suffix: f"image/{suffix[1:]}" for suffix in (".png", ".webp", ".gif", ".bmp", ".tiff")},
        ".avif": "image/avif",
    }
)


class NothingToPublishError(Exception):
    """A name matches no file, or a file cannot be read."""


@dataclass(frozen=True, slots=True)
class Publication:
    """One image to publish: `uri` for a reference, or the `path` whose bytes go inline.

    `image_id` is `None` where Imagewire should derive it from the record's place in Kafka.
    """

    image_id: str | None
    feed: str
    uri: str | None = None
    path: Path | None = None


def expand(
    names: Sequence[str],
    feed: str,
    *,
    inline: bool,
    roots: Iterable[Path] = (),
    on_skipped: Callable[[Path], None] = lambda _: None,
) -> list[Publication]:
    """What `names` (files, folders, globs, URLs) stand for.

    A file's id is derived from its feed and its absolute path, so that publishing it again
    overwrites what was found before.

    Args:
        inline: send the bytes of every file.
        roots: folders that the worker may read; files below them go as references unless
            `inline`, other files always go inline.
        on_skipped: is told of links in a folder that lead out of it: whoever may put a link there
            should not choose which of the reader's files are sent. A link that is named, or that
            a glob matches, is followed.

    Raises:
        NothingToPublishError
    """
    found = []
    resolved_roots = [root.resolve() for root in roots]
    for name in names:
        if _is_url(name):
            found.append(Publication(None, feed, uri=name))
            continue
        try:
            files = _files(name, on_skipped)
        except (OSError, RuntimeError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise NothingToPublishError(f"'{name}' cannot be looked up: {reason}") from error
        for path in files:
            image_id = str(uuid.uuid5(NAMESPACE, f"{feed}\n{path}"))
            if inline or not any(path.is_relative_to(root) for root in resolved_roots):
                found.append(Publication(image_id, feed, path=path))
            else:
                found.append(Publication(image_id, feed, uri=path.as_uri()))
    return found


def _is_url(name: str) -> bool:
    """Whether `name` has a scheme and is not a file's name with a colon in it."""
    # A single letter is a drive, not a scheme.
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", name)
    return scheme is not None and (name.startswith("data:") or not os.path.lexists(name))


def _files(name: str, on_skipped: Callable[[Path], None]) -> list[Path]:
    path = Path(name).expanduser()
    if path.is_dir():
        files = _files_below(path, on_skipped)
        if not files:
            raise NothingToPublishError(f"the folder {name} holds no image files")
    elif path.is_file():
        files = [path]
    elif path.exists():
        # A pipe or a device may never end.
        raise NothingToPublishError(f"{name} is neither a file nor a folder")
    elif has_magic(name):
        # pathlib's glob takes no absolute patterns before Python 3.13.
        matches = glob(str(path), recursive=True)  # noqa: PTH207
        files = sorted(match for match in map(Path, matches) if match.is_file())
        if not files:
            raise NothingToPublishError(f"'{name}' matches no file")
    else:
        raise NothingToPublishError(f"there is no file or folder '{name}'")
    # A link beside its target is the same file.
    return list(dict.fromkeys(file.resolve() for file in files))


def _files_below(folder: Path, on_skipped: Callable[[Path], None]) -> list[Path]:
    inside = folder.resolve()
    files = []
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() not in IMAGE_SUFFIXES or not file.is_file():
            continue
        # Linked folders count as well as linked files, whichever of them `rglob` follows.
        if file.resolve().is_relative_to(inside):
            files.append(file)
        else:
            on_skipped(file)
    return files


@dataclass(frozen=True, slots=True)
class Published:
    """Where a publication ended up on Kafka, and its Kafka timestamp."""

    image_id: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int


class ImagePublisher:
    """Sends publications and waits until every replica has them (`acks=all`)."""

    def __init__(self, producer: AIOKafkaProducer, settings: KafkaSettings) -> None:
        self._producer = producer
        self._topics = {Lane.LIVE: settings.topics.images, Lane.BULK: settings.topics.bulk}
        self._bootstrap = settings.bootstrap_servers

    async def publish(self, publication: Publication, lane: Lane = Lane.LIVE) -> Published:
        """Send one image.

        Raises:
            NothingToPublishError: its file cannot be read.
            TransientSinkError: the broker cannot be reached.
        """
        value, headers = _record(publication)
        now = time.time_ns() // 1_000_000
        try:
            stored = await self._producer.send_and_wait(
                self._topics[lane],
                value,
                key=publication.feed.encode(),
                timestamp_ms=now,
                headers=headers,
            )
        except aiokafka.errors.MessageSizeTooLargeError as error:
            raise NothingToPublishError(
                f"{publication.path or publication.uri} is too large for a Kafka record: {error}; "
                "publish a reference to it instead, or raise message.max.bytes on the broker and "
                "kafka.max_record_bytes here"
            ) from error
        except (aiokafka.errors.KafkaError, OSError) as error:
            raise TransientSinkError(
                f"the broker at {self._bootstrap} does not take records: {error!r}"
            ) from error
        derived = uuid.uuid5(NAMESPACE, f"{stored.topic}/{stored.partition}/{stored.offset}")
        return Published(
            publication.image_id or str(derived),
            stored.topic,
            stored.partition,
            stored.offset,
            now,
        )

    async def publish_all(
        self,
        publications: Sequence[Publication],
        lane: Lane,
        on_done: Callable[[Publication, Published | NothingToPublishError], None],
    ) -> None:
        """Send many images, 16 at a time: enough to keep the broker busy; more would only hold
        more files in memory. A file that cannot be read does not stop the others.

        Raises:
            TransientSinkError: the broker cannot be reached.
        """
        waiting = iter(publications)

        async def send() -> None:
            for publication in waiting:
                try:
                    on_done(publication, await self.publish(publication, lane))
                except NothingToPublishError as error:
                    on_done(publication, error)

        tasks = [asyncio.create_task(send()) for _ in range(16)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()


@asynccontextmanager
async def image_publisher(settings: KafkaSettings) -> AsyncIterator[ImagePublisher]:
    """An `ImagePublisher` with a producer of its own.

    Raises:
        TransientSinkError: the broker cannot be reached.
        PermanentSinkError: it lets nobody in with these settings.
    """
    producer = AIOKafkaProducer(**settings.producer_options())
    try:
        await producer.start()
    except (aiokafka.errors.KafkaError, OSError) as error:
        await producer.stop()
        raise await connection_error(settings, error, _no_broker(settings)) from error
    try:
        yield ImagePublisher(producer, settings)
    finally:
        await producer.stop()


def _no_broker(settings: KafkaSettings) -> str:
    return f"no broker answers at {settings.bootstrap_servers} (imagewire up starts one)"


def _record(publication: Publication) -> tuple[bytes, list[tuple[str, bytes]]]:
    if publication.path is None:
        fields: dict[str, Any] = {"uri": publication.uri, "feed": publication.feed}
        if publication.image_id is not None:
            fields["id"] = publication.image_id
        return msgspec.json.encode(fields), [("content-type", b"application/json")]
    try:
        content = publication.path.read_bytes()
    except OSError as error:
        raise NothingToPublishError(
            f"{publication.path} cannot be read: {error.strerror}"
        ) from error
    # The bytes decide what it is; the type only says that these are bytes of an image.
    content_type = CONTENT_TYPES.get(publication.path.suffix.lower(), "application/octet-stream")
    headers = [
        ("content-type", content_type.encode()),
        ("feed", publication.feed.encode()),
        ("file-name", publication.path.name.encode("utf-8", errors="replace")),
    ]
    if publication.image_id is not None:
        headers.append(("image-id", publication.image_id.encode()))
    return content, headers
