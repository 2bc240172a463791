"""What was erased and must not come back: tombstones, held in every worker's memory.

A tombstone stands on a compacted topic under a hash of an image's id, of its content id, or of a
feed's name, so that it keeps none of them itself. Frames that it covers are dropped before they are
analysed, and once more before each write, since a frame may be under way when its tombstone comes.
A tombstone is never let go of to save memory: it would be a promise broken.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Literal, Protocol

import msgspec

from operators.frame import Frame

logger = logging.getLogger(__name__)

Kind = Literal["image", "content", "feed"]
KINDS: tuple[Kind, ...] = ("image", "content", "feed")
_DIGEST_BYTES = 16
"""Held in memory of each hash: two of a billion images collide with a probability of 1e-21."""


class Tombstone(msgspec.Struct, frozen=True):
    """A record of the topic `images.forgotten`. `forgotten_at`: milliseconds since the epoch. For a
    feed it covers what reached Kafka until then; for an image or a content, whatever comes."""

    forgotten_at: int


_decode = msgspec.json.Decoder(Tombstone).decode


def tombstone_key(kind: Kind, name: str) -> bytes:
    """The key of a tombstone: the kind and a SHA-256, which tells the name only to those who can
    guess it."""
    return f"{kind}:{_hash(kind, name).hex()}".encode()


def tombstone_record(kind: Kind, name: str, now_ms: int) -> tuple[bytes, bytes]:
    """Key and value of the record that has `name` forgotten."""
    return tombstone_key(kind, name), msgspec.json.encode(Tombstone(now_ms))


class Covers(Protocol):
    """Whether an image was erased: by its id, its content, or with its feed. See
    `Tombstones.covers`."""

    def __call__(
        self,
        image_id: str,
        content_id: str | None = None,
        feed: str | None = None,
        arrived_ms: int | None = None,
    ) -> bool: ...


def nothing_erased(
    image_id: str,
    content_id: str | None = None,
    feed: str | None = None,
    arrived_ms: int | None = None,
) -> bool:
    """Where there are no tombstones."""
    return False


class Tombstones:
    """All tombstones; some 90 bytes of memory each. Written in the event loop, asked from any
    thread.

    Attributes:
        changes: grows with every tombstone that comes; equal numbers mean that nothing came.
    """

    def __init__(self) -> None:
        self.changes = 0
        self._ids: dict[Kind, set[bytes]] = {"image": set(), "content": set()}
        self._feeds: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._ids["image"]) + len(self._ids["content"]) + len(self._feeds)

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Take in a record of the topic; what is no tombstone is passed over with a warning."""
        kind, _, digits = (key or b"").decode("ascii", "replace").partition(":")
        try:
            digest = bytes.fromhex(digits)[:_DIGEST_BYTES]
            forgotten_at = 0 if value is None else _decode(value).forgotten_at
        except (ValueError, msgspec.MsgspecError):
            digest = b""
        if kind not in KINDS or len(digest) != _DIGEST_BYTES:
            logger.warning("a record of the topic of tombstones is none: %.80r", key)
            return
        if kind == "feed":
            if value is None:
                self._feeds.pop(digest, None)
            else:
                self._feeds[digest] = max(forgotten_at, self._feeds.get(digest, 0))
        elif value is None:
            self._ids[kind].discard(digest)
        else:
            self._ids[kind].add(digest)
        self.changes += 1

    def covers(
        self,
        image_id: str,
        content_id: str | None = None,
        feed: str | None = None,
        arrived_ms: int | None = None,
    ) -> bool:
        """Whether the image, its content, or its feed was erased.

        Args:
            feed, arrived_ms: the feed, and when a record of the image reached Kafka (milliseconds
                since the epoch): a feed's tombstone covers what had come by then.
        """
        images, contents = self._ids["image"], self._ids["content"]
        if images and _digest("image", image_id) in images:
            return True
        if contents and content_id and _digest("content", content_id) in contents:
            return True
        if not self._feeds or feed is None or arrived_ms is None:
            return False
        until = self._feeds.get(_digest("feed", feed))
        return until is not None and arrived_ms <= until

    def covers_frame(self, frame: Frame) -> bool:
        """Whether the frame's image, its content, or its feed up to its arrival was erased."""
        if not self.changes:
            return False
        prints = frame.findings.fingerprint
        content_id = prints.content_id if prints is not None else None
        return self.covers(frame.image_id, content_id, frame.feed, frame.origin.timestamp_ms)


def _digest(kind: Kind, name: str) -> bytes:
    return _hash(kind, name)[:_DIGEST_BYTES]


def _hash(kind: Kind, name: str) -> bytes:
    # The kind is hashed too, so that ids of different kinds tell nothing about each other.
    return hashlib.sha256(f"imagewire {kind} {name}".encode("utf-8", "surrogatepass")).digest()
