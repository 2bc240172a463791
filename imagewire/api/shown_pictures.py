"""The picture of a stored image as it may be shown, plain or with what was found drawn over it.

What was made is kept for a while, in memory only, under a tag that changes with everything that
the picture depends on. Browsers get the same tag and ask by it, so that a wall of pictures is made
once.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from imagewire.api.image_queries import KnownImage
from imagewire.api.kept_bytes import KeptBytes
from imagewire.api.picture_drawing import Drawn, annotated
from imagewire.api.pictures import Pictures

_KEPT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Look:
    """How an image is to be shown.

    Attributes:
        size: the longer side in pixels; a smaller picture keeps its own.
        unblurred: nothing is hidden, not even what was blocked; for those who review.
        drawn: what is drawn over it, if anything.
    """

    size: int
    unblurred: bool = False
    drawn: Drawn | None = None

    def tag(self, known: KnownImage) -> str:
        """32 hex digits that change when the picture may have changed."""
        image = known.image
        what = (
            *(image.key, image.content_id, image.uri, image.topic, image.partition, image.offset),
            *(image.verdict, self, known.version),
            # What is known of private places is hidden, too.
            known.record,
        )
        return hashlib.sha256(repr(what).encode("utf-8", "replace")).hexdigest()[:32]


_kept: WeakKeyDictionary[Pictures, KeptBytes] = WeakKeyDictionary()


async def picture_of(pictures: Pictures, known: KnownImage, look: Look) -> bytes:
    """A WebP of the image.

    Raises:
        Problem: it cannot be had, decoded or shown.
    """
    kept = _kept.setdefault(pictures, KeptBytes(_KEPT_BYTES))
    tag = look.tag(known)
    found = kept.get(tag)
    if found is None:
        content = await content_of(pictures, known)
        found = await shown(pictures, known, look, content)
        kept.put(tag, found)
    return found


async def content_of(pictures: Pictures, known: KnownImage) -> bytes:
    """The image's encoded bytes, which must not leave: they hide nothing.

    Raises:
        Problem: they cannot be had.
    """
    image = known.image
    return await pictures.content(
        uri=image.uri or None,
        topic=image.topic,
        partition=image.partition,
        offset=image.offset,
        content_id=image.content_id,
        image_id=image.key.image_id,
    )


async def shown(pictures: Pictures, known: KnownImage, look: Look, content: bytes) -> bytes:
    """A WebP of `content`, the image's bytes.

    Raises:
        Problem: it cannot be decoded or shown.
    """
    thumbnail = await pictures.thumbnail(
        content,
        size=look.size,
        findings=known.findings,
        hidden=known.image.verdict == "block" and not look.unblurred,
        unblurred=look.unblurred,
    )
    drawn = look.drawn
    if drawn is None:
        return thumbnail.content
    return await asyncio.to_thread(annotated, thumbnail.content, known.findings, drawn)
