"""The bytes of stored images, and the small pictures made of them that may be shown.

Imagewire keeps no pictures. Those that came by reference are fetched again, under the rules that
the worker obeys; those that came inline are read from Kafka, as long as it has them. Either way the
bytes must be those that were analysed: another picture under the same address would be shown with
findings, and with places hidden, that are not its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from imagewire.api.giving_way import give_way, use_few_processors
from imagewire.api.kafka_record import KafkaRecords, RecordGoneError
from imagewire.api.kept_bytes import KeptBytes
from imagewire.api.problems import Problem
from imagewire.settings import Settings
from models.errors import ModelError
from operators.frame import Origin
from streams.fetch import Fetcher
from streams.fetched import FetchError
from streams.records import frame_from_record

if TYPE_CHECKING:
    from operators.findings import Findings
    from operators.thumbnail import Thumbnail, ThumbnailMaker

logger = logging.getLogger(__name__)

_KEPT_BYTES = 96 * 1024 * 1024
"""Encoded pictures kept: a person who looks at one asks for it in several sizes."""
_FETCHED_AT_ONCE = 16
_Kind = Literal["small", "large", "open"]
"""The makers: for small and for large pictures, and one that hides nothing."""
_MOST_WAITING = 256
"""Pictures that may wait to be made small; each holds its bytes."""


SMALL = 640
"""Up to this longer side in pixels a picture is made by the quicker maker: finding faces takes most
of the time, and four times as long in a picture of twice the size. Walls are made of small ones."""


class Pictures:
    """Gets pictures and makes them fit to be shown."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._records = KafkaRecords(settings.kafka)
        self._fetcher: Fetcher | None = None
        self._opened = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._fetching = asyncio.Semaphore(_FETCHED_AT_ONCE)
        self._kept = KeptBytes(_KEPT_BYTES)
        self._thread = ThreadPoolExecutor(1, "pictures", give_way)
        self._makers: dict[_Kind, ThumbnailMaker] = {}
        self._waiting = 0

    async def content(
        self,
        *,
        uri: str | None,
        topic: str,
        partition: int,
        offset: int,
        content_id: str = "",
        image_id: str = "",
    ) -> bytes:
        """The encoded bytes of a stored image.

        Args:
            uri: as stored; without one the bytes stand in the record at topic/partition/offset.
            content_id: SHA-256 of the bytes that were analysed, if they were.
            image_id: whose bytes are in the record; compared with it, if given: a topic that was
                made anew counts from 0 again.

        Raises:
            Problem: 404 or 410, the picture is no longer to be had, or is another one now; 502 or
                503, whoever has it does not answer.
        """
        kept = self._kept.get(content_id) if content_id else None
        if kept is not None:
            return kept
        async with self._fetching:
            if uri:
                content = await self._fetched(uri)
            else:
                content = await self._recorded(topic, partition, offset, image_id)
        if content_id:
            found = await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest())
            if found != content_id:
                raise Problem(
                    410,
                    "picture-changed",
                    "The picture is another one now",
                    "what is now at the image's address is not what was analysed, so it is not "
                    "shown",
                )
            self._kept.put(content_id, content)
        return content

    async def thumbnail(
        self,
        content: bytes,
        *,
        size: int,
        findings: Findings | None = None,
        hidden: bool = False,
        unblurred: bool = False,
    ) -> Thumbnail:
        """A WebP of at most `size` pixels on its longer side, private places hidden.

        Args:
            findings: of the image; what they know of is hidden as well.
            hidden: nothing may be recognised, as of a picture that was blocked.
            unblurred: hide no private places; for callers with the scope review only.

        Raises:
            Problem: 422, the picture cannot be decoded or the size is out of range.
        """
        if self._waiting >= _MOST_WAITING:
            raise Problem(
                503,
                "busy",
                "Too much is asked at once",
                "too many pictures wait to be shown; ask again",
                headers={"Retry-After": "1"},
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, self._make, content, size, findings, hidden, unblurred
            )
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Close connections and end the processes that decode."""
        await self._opened.aclose()
        await self._records.close()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close_makers)
        self._thread.shutdown(wait=False)

    async def _fetched(self, uri: str) -> bytes:
        async with self._opening:
            if self._fetcher is None:
                fetcher = Fetcher(self._settings.fetch)
                self._fetcher = await self._opened.enter_async_context(fetcher)
        try:
            return await self._fetcher.fetch(uri)
        except FetchError as error:
            gone = error.reason in ("not-found", "forbidden", "bad-uri", "empty", "too-many-bytes")
            raise Problem(
                404 if gone else 502,
                "picture-not-there" if gone else "picture-away",
                "The picture is not to be had",
                f"the picture cannot be fetched from where it was: {error}",
                reason=error.reason,
            ) from error

    async def _recorded(self, topic: str, partition: int, offset: int, image_id: str) -> bytes:
        gone = Problem(
            410,
            "picture-gone",
            "The picture is gone",
            "the picture came on Kafka, which no longer has it",
        )
        topics = self._settings.kafka.topics
        if topic not in (topics.images, topics.bulk):
            raise gone
        try:
            record = await self._records.read(topic, partition, offset)
        except RecordGoneError as error:
            raise gone from error
        place = Origin(topic, partition, offset, record.timestamp or 0)
        origin = replace(place, key=record.key, value=record.value, headers=tuple(record.headers))
        frame = await asyncio.to_thread(frame_from_record, origin)
        if frame.content is None or image_id not in ("", frame.image_id):
            raise gone
        return frame.content

    # in the thread

    def _make(
        self,
        content: bytes,
        size: int,
        findings: Findings | None,
        hidden: bool,
        unblurred: bool,
    ) -> Thumbnail:
        from operators.frame import Failure
        from operators.operator import OperatorError
        from operators.thumbnail import LARGEST, Shown

        if not 1 <= size <= LARGEST:
            raise Problem(
                422,
                "invalid-request",
                "The request is not valid",
                f"size is {size}: 1 to {LARGEST} pixels are possible",
            )
        kind: _Kind = "open" if unblurred else "small" if size <= SMALL else "large"
        try:
            maker = self._maker(kind)
        except (ModelError, OperatorError) as error:
            logger.error("no picture can be shown: %s", error)
            raise Problem(
                503,
                "pictures-unavailable",
                "No picture can be shown here",
                "what must be hidden in pictures cannot be looked for; the service's log says why",
            ) from error
        made = maker.make([Shown(content, findings, hidden)], [size])[0]
        if isinstance(made, Failure):
            raise Problem(
                422,
                "unusable-picture",
                "The picture cannot be used",
                f"the picture cannot be decoded: {made.detail}",
                reason=made.reason,
            )
        return made.thumbnails[0]

    def _maker(self, kind: _Kind) -> ThumbnailMaker:
        maker = self._makers.get(kind)
        if maker is None:
            from models.catalog import load_catalog
            from models.device import choose_device
            from operators.thumbnail import LARGEST, ThumbnailMaker

            use_few_processors()
            settings = self._settings
            options = settings.privacy.model_copy(update={"blur": ()} if kind == "open" else {})
            maker = self._makers[kind] = ThumbnailMaker(
                options,
                choose_device(settings.api.device, settings.models.precision),
                load_catalog(settings.models.catalogs),
                objects={
                    name: value
                    for name, value in settings.operators.get("objects", {}).items()
                    if name not in ("enabled", "when")
                },
                limits=settings.decode.limits(settings.fetch.max_bytes),
                largest=SMALL if kind == "small" else LARGEST,
                threads=1,
                isolation="process",
            )
        return maker

    def _close_makers(self) -> None:
        for maker in self._makers.values():
            maker.close()
        self._makers.clear()
