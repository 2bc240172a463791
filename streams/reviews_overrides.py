"""What people decided, held in every worker's memory, so that each verdict is looked up in it.

The decisions come from a compacted topic with a record for each image and one for each content, and
of two for the same key the later decision stands, in whatever order they arrive. Look-ups are a
dictionary's; the memory is bounded by letting go of those that came longest ago, which ClickHouse
still has.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated

import msgspec

from operators.findings import Verdict
from operators.frame import Frame
from sinks.event_time import rfc3339
from streams.reviews import LATEST_MS, Choice, Decision, Order

logger = logging.getLogger(__name__)

_IMAGE, _CONTENT = "image:", "content:"


class Override(msgspec.Struct, frozen=True, gc=False, array_like=False):
    """A record of the topic `images.overrides`, as small as it can be. `decided_at`: milliseconds
    since the epoch, up to the year 2100."""

    decision: Choice
    decided_at: Annotated[int, msgspec.Meta(ge=0, le=LATEST_MS)]
    decision_id: str

    @property
    def order(self) -> Order:
        return self.decided_at, self.decision_id


_decode = msgspec.json.Decoder(Override).decode


def override_records(decision: Decision) -> list[tuple[bytes, bytes]]:
    """Key and value of the records that tell every worker of `decision`: one for the image, one for
    its content if that is known."""
    value = msgspec.json.encode(
        Override(decision.choice, decision.decided_at_ms, decision.decision_id)
    )
    keys = [_IMAGE + decision.image_id]
    if decision.content_id is not None:
        keys.append(_CONTENT + decision.content_id)
    return [(key.encode(), value) for key in keys]


def override_keys(image_id: str | None = None, content_id: str | None = None) -> list[bytes]:
    """The keys under which decisions on this image, or this content, stand on the topic."""
    keys = []
    if image_id is not None:
        keys.append((_IMAGE + image_id).encode())
    if content_id is not None:
        keys.append((_CONTENT + content_id).encode())
    return keys


class Overrides:
    """Decisions by image and by content. For use in one event loop, while other threads look up.

    Args:
        entries: most keys that are held; a decision has two, its image's and its content's.
        on_outrun: told key and value of a decision that stands when one made before it arrives
            after it on the topic, which keeps only what came last: it has to be written again.
    """

    def __init__(
        self, entries: int, on_outrun: Callable[[bytes, bytes], object] = lambda key, value: None
    ) -> None:
        self._entries = entries
        self._on_outrun = on_outrun
        self._known: dict[bytes, Override] = {}
        self._warned = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._known)

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Take in a record of the topic; what is no override is passed over with a warning."""
        if key is None or not key.startswith((_IMAGE.encode(), _CONTENT.encode())):
            logger.warning("a record of the topic of overrides has a key that is none: %.80r", key)
            return
        packed = _packed(key)
        if value is None:
            self._known.pop(packed, None)
            return
        try:
            found = _decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            logger.warning("the override %.80r cannot be read: %s", key, error)
            return
        known = self._known.get(packed)
        if known is not None and known.order > found.order:
            self._on_outrun(key, msgspec.json.encode(known))
            return
        # Anew, so that those that came longest ago come first.
        self._known.pop(packed, None)
        self._known[packed] = found
        if len(self._known) > self._entries:
            self._make_room()

    def standing(self, image_id: str, content_id: str | None) -> Override | None:
        """The latest decision on this image or its content; a withdrawal is one too."""
        known = self._known
        if not known:
            return None
        own = known.get(_packed((_IMAGE + image_id).encode()))
        twin = known.get(_packed((_CONTENT + content_id).encode())) if content_id else None
        if own is None or (twin is not None and twin.order > own.order):
            return twin
        return own

    def decided(self, verdict: Verdict, frame: Frame) -> Verdict:
        """`verdict`, or what a person decided in its place, with the policy's action beside it."""
        prints = frame.findings.fingerprint
        standing = self.standing(frame.image_id, prints.content_id if prints else None)
        if standing is None or standing.decision == "withdraw":
            return as_machine(verdict)
        return as_person(verdict, standing.decision, standing.decided_at, standing.decision_id)

    def _make_room(self) -> None:
        del self._known[next(iter(self._known))]
        self.dropped += 1
        if not self._warned:
            self._warned = True
            logger.warning(
                "more than %d decisions are kept by image and content; those that came longest ago "
                "are not applied by this worker any more (reviews.max_overrides)",
                self._entries,
            )


def as_person(verdict: Verdict, decision: Choice, decided_at_ms: int, decision_id: str) -> Verdict:
    """The policy's `verdict` with a person's decision, `allow` or `block`, in its place."""
    if decision == "withdraw":
        raise ValueError("a withdrawal is no verdict of a person")
    return msgspec.structs.replace(
        verdict,
        action=decision,
        decided_by="person",
        machine_action=verdict.machine_action or verdict.action,
        decision_id=decision_id,
        decided_at=rfc3339(decided_at_ms),
    )


def as_machine(verdict: Verdict) -> Verdict:
    """The policy's own verdict, whoever has decided over it."""
    if verdict.decided_by == "policy":
        return verdict
    return msgspec.structs.replace(
        verdict,
        action=verdict.machine_action or verdict.action,
        decided_by="policy",
        machine_action=None,
        decision_id=None,
        decided_at=None,
    )


def _packed(key: bytes) -> bytes:
    """Content ids as the 32 bytes that they are: they make up half of all keys."""
    if key.startswith(b"content:") and len(key) == 72:
        try:
            return bytes.fromhex(key[8:].decode("ascii"))
        except ValueError:
            return key
    return key
