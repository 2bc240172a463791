"""What a banlist consists of, as it stands on the topic of bans and in exchange files.

Three kinds of record, told apart by `record`: a list's own settings, a banned hash, and a banned
exemplar. Everything has a size limit, since whoever may write to the topic may write anything. A
record's key on Kafka says what it replaces; a key without a value takes it back.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from operators.findings import Action

HashKind = Literal["pdq", "sha256"]
HASH_KINDS: tuple[HashKind, ...] = ("pdq", "sha256")

MOST_RECORD_BYTES = 64 * 1024
"""Records larger than this are passed over: the largest exemplar takes a third of it."""
MOST_DIMENSIONS = 8192
"""Of an exemplar's embedding."""

ListName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        description="Name of the list: up to 64 letters, digits, '_', '-' and '.'.",
    ),
]
Hash = Annotated[
    str, Meta(pattern=r"^[0-9a-f]{64}$", description="64 hexadecimal digits in lower case.")
]
Comment = Annotated[str, Meta(max_length=500, description="Whatever people should know of it.")]
Moment = Annotated[
    str, Meta(max_length=40, description="RFC 3339, such as 2026-01-31T12:00:00Z; may be empty.")
]
_Word = Annotated[str, Meta(max_length=200)]


class Banlist(Struct, frozen=True, kw_only=True, tag_field="record", tag="list"):
    """The settings of one list.

    `enabled_ratio` is the share of images for which the list is consulted: which ones is decided by
    their bytes, so the same image has the same answer everywhere and again. The other limits say
    what counts as a match: bits in which PDQ hashes may differ, the least PDQ quality of an image
    that is compared at all, and the cosine distance between an image's embedding and an exemplar's.
    """

    name: ListName
    owner: Annotated[_Word, Meta(description="Who answers for the list.")] = ""
    reason: Annotated[_Word, Meta(description="Why its images are listed; stands in findings.")] = (
        ""
    )
    action: Annotated[Action, Meta(description="What the list asks the policy for.")] = "block"
    enabled_ratio: Annotated[
        float, Meta(ge=0.0, le=1.0, description="Share of images that it is consulted for.")
    ] = 1.0
    max_distance: Annotated[
        int, Meta(ge=0, le=31, description="Bits of 256 in which PDQ hashes may differ.")
    ] = 31
    min_quality: Annotated[
        int, Meta(ge=0, le=100, description="Least PDQ quality of an image that is compared.")
    ] = 50
    max_embedding_distance: Annotated[
        float, Meta(ge=0.0, le=1.0, description="Largest cosine distance to an exemplar.")
    ] = 0.2
    created_at: Moment = ""


class BannedHash(Struct, frozen=True, kw_only=True, tag_field="record", tag="hash"):
    """One entry of a list: the SHA-256 of a file's bytes, or the PDQ hash of a picture."""

    list: ListName
    kind: Annotated[HashKind, Meta(description="Of the picture (pdq) or of its file (sha256).")]
    hash: Hash
    comment: Comment = ""
    added_at: Moment = ""


class BannedExemplar(Struct, frozen=True, kw_only=True, tag_field="record", tag="exemplar"):
    """One entry of a list: the embedding of a picture. `hash` is the SHA-256 of the picture's file,
    `model` the embedder's `name@version`, `vector` 16-bit floats, little-endian, in base64."""

    list: ListName
    hash: Hash
    model: Annotated[
        str, Meta(min_length=1, max_length=200, description="name@version of the embedder.")
    ]
    vector: Annotated[
        bytes,
        Meta(
            min_length=2,
            max_length=2 * MOST_DIMENSIONS,
            description="16-bit floats, little-endian, in base64.",
        ),
    ]
    comment: Comment = ""
    added_at: Moment = ""


BanRecord = Banlist | BannedHash | BannedExemplar

_KEY = re.compile(
    r"list:(?P<only>[A-Za-z0-9][A-Za-z0-9_.-]{0,63})"
    r"|(?P<kind>pdq|sha256|exemplar):(?P<list>[A-Za-z0-9][A-Za-z0-9_.-]{0,63}):(?P<hash>[0-9a-f]{64})"
)
_DECODER = msgspec.json.Decoder(BanRecord)


class BanRecordError(ValueError):
    """A record that is none of ours: the message says what is wrong with it."""


class BanKey(Struct, frozen=True):
    """What a record is about: a list (`kind` is `list`, `hash` empty), or an entry of one."""

    kind: Literal["list", "pdq", "sha256", "exemplar"]
    list: str
    hash: str = ""

    def encode(self) -> bytes:
        """The key on Kafka: `list:NAME` or `KIND:NAME:HASH`."""
        parts = (self.kind, self.list, self.hash) if self.hash else (self.kind, self.list)
        return ":".join(parts).encode()


def key_of(record: BanRecord) -> BanKey:
    """What `record` replaces."""
    if isinstance(record, Banlist):
        return BanKey("list", record.name)
    if isinstance(record, BannedHash):
        return BanKey(record.kind, record.list, record.hash)
    return BanKey("exemplar", record.list, record.hash)


def encode(record: BanRecord) -> bytes:
    """The value on Kafka."""
    return msgspec.json.encode(record)


def decode_key(key: bytes | None) -> BanKey:
    """
    Raises:
        BanRecordError: it is no key of a ban.
    """
    text = (key or b"")[:300].decode("ascii", errors="replace")
    match = _KEY.fullmatch(text)
    if match is None:
        raise BanRecordError(f"the key {text[:80]!r} is neither list:NAME nor KIND:NAME:HASH")
    if match["only"] is not None:
        return BanKey("list", match["only"])
    return BanKey(match["kind"], match["list"], match["hash"])  # type: ignore[arg-type]


def decode(key: BanKey, value: bytes) -> BanRecord:
    """
    Raises:
        BanRecordError: it is no record of a ban, is too large, or belongs under another key.
    """
    if len(value) > MOST_RECORD_BYTES:
        raise BanRecordError(f"it has {len(value)} bytes; {MOST_RECORD_BYTES} are the most")
    try:
        record: BanRecord = _DECODER.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BanRecordError(f"it is no record of a ban: {error}") from error
    if key_of(record) != key:
        raise BanRecordError(f"its key says {key.encode().decode()}, and its value something else")
    return record
