"""The topic of bans, as callers read and change it.

Kafka has no index: whoever asks for a list has the topic read from its beginning. So one reads at a
time, and how many entries each list has is kept for some seconds.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from aiokafka import AIOKafkaProducer
from numpy.typing import NDArray

from imagewire.api.waiting import turn_of
from imagewire.settings import Settings
from operators.ban_records import (
    Banlist,
    BannedExemplar,
    BannedHash,
    BanRecord,
    key_of,
)
from sinks.kafka.topics import ensure_topics

if TYPE_CHECKING:
    from imagewire.bans import Bans
    from operators.findings import Embedding

_KEPT_SECONDS = 10.0
_KINDS = ("pdq", "sha256", "exemplar")
_IMAGES = """
SELECT image_id, content_id, pdq, pdq_quality, models['embedding'] AS embedder
FROM images_raw FINAL
WHERE image_id IN {ids:Array(String)}
ORDER BY version DESC LIMIT 1 BY image_id
"""

Ask = Callable[..., Awaitable[list[dict[str, Any]]]]
VectorsOf = Callable[[str, Sequence[str]], Awaitable[Mapping[str, NDArray[np.float32]]]]
"""The stored vectors of images, by embedder and ids."""


class UnknownListError(LookupError):
    """There is no such list."""


class BanDesk:
    """One for each process of the API.

    Args:
        query: asks ClickHouse.
        producer: gives the producer to publish with.
        embed: the embedding of a picture.
        vectors_of: the embeddings of images that are stored.
    """

    def __init__(
        self,
        settings: Settings,
        query: Ask,
        producer: Callable[[], Awaitable[AIOKafkaProducer]],
        embed: Callable[[bytes], Awaitable[Embedding]],
        vectors_of: VectorsOf,
    ) -> None:
        self._settings = settings
        self._query = query
        self._producer = producer
        self._embed = embed
        self._vectors_of = vectors_of
        self._turn = asyncio.Lock()
        self._hashing = asyncio.Lock()
        self._bans: Bans | None = None
        self._known: tuple[float, list[tuple[Banlist, dict[str, int]]]] | None = None

    async def lists(self) -> list[tuple[Banlist, dict[str, int]]]:
        """Every list by name, each with how many entries of each kind it has.

        Raises:
            TransientSinkError
        """
        topic = await self._topic()
        async with turn_of(self._turn, "Kafka"):
            if self._known is not None and time.monotonic() < self._known[0]:
                return self._known[1]
            keys = await topic.standing()
            counts: Counter[tuple[str, str]] = Counter((key.list, key.kind) for key in keys)
            own = {key: place for key, place in keys.items() if key.kind == "list"}
            found = [each async for each in topic.records(own) if isinstance(each, Banlist)]
            lists = [
                (banlist, {kind: counts[banlist.name, kind] for kind in _KINDS})
                for banlist in sorted(found, key=lambda each: each.name)
            ]
            self._known = (time.monotonic() + _KEPT_SECONDS, lists)
            return lists

    async def entries(
        self, name: str, kind: str | None, after: tuple[str, str] | None, limit: int
    ) -> list[BannedHash | BannedExemplar]:
        """Entries of a list, by kind and hash, from the one that follows `after` on.

        Raises:
            UnknownListError
            TransientSinkError
        """
        await self.list_named(name)
        topic = await self._topic()
        async with turn_of(self._turn, "Kafka"):
            keys = await topic.standing(
                lambda key: (
                    key.list == name
                    and key.kind != "list"
                    and kind in (None, key.kind)
                    and (after is None or (key.kind, key.hash) > after)
                )
            )
            page = sorted(keys, key=lambda key: (key.kind, key.hash))[:limit]
            found = [
                record
                async for record in topic.records({key: keys[key] for key in page})
                if isinstance(record, BannedHash | BannedExemplar)
            ]
        return sorted(found, key=lambda each: (key_of(each).kind, each.hash))

    async def list_named(self, name: str) -> Banlist:
        """
        Raises:
            UnknownListError
            TransientSinkError
        """
        for banlist, _ in await self.lists():
            if banlist.name == name:
                return banlist
        raise UnknownListError(name)

    async def add(self, records: Sequence[BanRecord]) -> None:
        """Make bans; workers know within a second.

        Raises:
            TransientSinkError
        """
        topic = await self._topic()
        await topic.write((key_of(record), record) for record in records)
        self._known = None

    async def remove(self, name: str, kind: str | None = None, digest: str | None = None) -> int:
        """Take an entry of a list away, or the whole list; returns how many records.

        Raises:
            TransientSinkError
        """
        topic = await self._topic()
        async with turn_of(self._turn, "Kafka"):
            keys = await topic.standing(
                lambda key: (
                    key.list == name
                    and (digest is None or (key.hash == digest and key.kind == kind))
                )
            )
            # Entries first: were it cut short, the list could still be seen and taken away.
            order = sorted(keys, key=lambda key: key.kind == "list")
            count = await topic.write((key, None) for key in order)
            self._known = None
        return count

    async def of_images(
        self, name: str, image_ids: Sequence[str], comment: str, *, exemplar: bool
    ) -> tuple[list[BanRecord], list[str]]:
        """What bans images that are stored: their bytes, and their PDQ hashes where these are worth
        comparing; or their embeddings. And the ids of images that are not there, were never
        fetched, or have no embedding.

        Raises:
            QueryError
            TransientSinkError, PermanentSinkError: Qdrant does not give embeddings.
        """
        from imagewire.bans import LEAST_QUALITY, now

        rows = {
            row["image_id"]: row
            for row in await self._query(_IMAGES, {"ids": list(image_ids)})
            if row["content_id"]
        }
        about = {"list": name, "comment": comment, "added_at": now()}
        if exemplar:
            made, known = await self._exemplars(rows, about)
            return made, [each for each in image_ids if each not in known]
        hashes: list[BanRecord] = []
        for row in rows.values():
            hashes.append(BannedHash(kind="sha256", hash=row["content_id"], **about))
            if row["pdq_quality"] >= LEAST_QUALITY and len(row["pdq"]) == 64:
                hashes.append(BannedHash(kind="pdq", hash=row["pdq"], **about))
        return hashes, [each for each in image_ids if each not in rows]

    async def _exemplars(
        self, rows: Mapping[str, Mapping[str, Any]], about: Mapping[str, str]
    ) -> tuple[list[BanRecord], set[str]]:
        """The exemplars that images give, by the embedder that saw each, and the images' ids."""
        from operators.exemplars import packed

        of_model: defaultdict[str, list[str]] = defaultdict(list)
        for image_id, row in rows.items():
            if row["embedder"]:
                of_model[row["embedder"]].append(image_id)
        made: dict[str, BanRecord] = {}
        known: set[str] = set()
        for model, ids in of_model.items():
            for image_id, vector in (await self._vectors_of(model, ids)).items():
                known.add(image_id)
                content = rows[image_id]["content_id"]
                # Copies of one picture are one exemplar.
                made[content] = BannedExemplar(
                    hash=content, model=model, vector=packed(vector.tolist()), **about
                )
        return list(made.values()), known

    async def of_picture(
        self, name: str, content: bytes, comment: str, *, exemplar: bool
    ) -> list[BanRecord]:
        """What bans the picture that `content` is.

        Raises:
            imagewire.bans.UnusablePictureError
            Problem: there is no embedder, or too many pictures wait for it.
        """
        from imagewire.bans import now
        from operators.exemplars import packed

        if exemplar:
            embedding = await self._embed(content)
            record = BannedExemplar(
                list=name,
                hash=hashlib.sha256(content).hexdigest(),
                model=embedding.model,
                vector=packed(embedding.vector),
                comment=comment,
                added_at=now(),
            )
            return [record]
        async with self._hashing:
            return await asyncio.to_thread(self._hashes, name, content, comment)

    def _hashes(self, name: str, content: bytes, comment: str) -> list[BanRecord]:
        from imagewire.bans import UnusablePictureError, of_picture

        with tempfile.TemporaryDirectory(prefix="imagewire-ban-") as folder:
            path = Path(folder) / "picture"
            path.write_bytes(content)
            try:
                return of_picture(path, self._settings, name, comment, exemplar=False)
            except UnusablePictureError as error:
                # Where the picture lay for a moment is nobody's business.
                raise UnusablePictureError(str(error).replace(str(path), "the picture")) from None

    async def _topic(self) -> Bans:
        from imagewire.bans import Bans

        async with turn_of(self._turn, "Kafka"):
            if self._bans is None:
                await ensure_topics(self._settings.kafka)
                self._bans = Bans(self._settings.kafka, await self._producer())
            return self._bans
