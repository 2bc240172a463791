"""Frames of a feed that look like one just analysed need not be analysed again.

A camera that watches a still scene sends the same picture many times, never with the same bytes.
Its PDQ hash says so for a fraction of a millisecond. Each frame is compared with the last one that
was analysed, never with one that was itself skipped, so that a slow pan cannot drift away
unnoticed; and after so many frames in a row one is analysed in any case. Objects are always looked
for: they are what moves.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from operators.findings import Findings
from operators.frame import Frame

SKIPPED = frozenset({"text", "embedding", "scores"})
"""Operators whose findings are taken over."""
REUSED = "reused"
"""The key in `findings.extra` under which a frame says whose findings it has."""
_LEAST_QUALITY = 50
"""Below it a PDQ hash says little (the authors' own threshold), so the frame is analysed."""
_FEEDS = 256
"""Feeds whose last frame is remembered; each takes about 50 KB."""


@dataclass(slots=True)
class _Reference:
    """A frame that was analysed, or is being analysed. Not the frame itself, whose record may hold
    the bytes of its image."""

    image_id: str
    hash: int
    size: tuple[int, int]
    findings: Findings
    followers: int = 0
    complete: bool = False


@dataclass(slots=True)
class Likeness:
    """Whose findings a frame takes over, and how many of 256 bits their hashes differ in."""

    reference: _Reference
    distance: int


class NearIdentical:
    """Finds frames that need no analysis, and fills their findings from those that had one.

    Belongs to one thread, like the chain that uses it.
    """

    def __init__(self, distance: int, frames: int) -> None:
        """
        Args:
            distance: bits of 256 in which the hashes of two frames may differ.
            frames: how many in a row may take over the findings of one.
        """
        self._distance = distance
        self._frames = frames
        self._last: OrderedDict[str, _Reference] = OrderedDict()
        self._under_way: list[_Reference] = []

    def alike(self, frames: Sequence[Frame]) -> dict[Frame, Likeness]:
        """Those of `frames`, fingerprinted and in their order, that need no analysis."""
        found = {}
        self._under_way = []
        for frame in frames:
            own = _reference(frame)
            if own is None:
                continue
            last = self._last.get(frame.feed)
            if last is not None and self._may_stand_for(last, own):
                distance = (last.hash ^ own.hash).bit_count()
                if distance <= self._distance:
                    last.followers += 1
                    found[frame] = Likeness(last, distance)
                    continue
            self._last[frame.feed] = own
            self._last.move_to_end(frame.feed)
            self._under_way.append(own)
            if len(self._last) > _FEEDS:
                self._last.popitem(last=False)
        return found

    def fill(
        self, alike: Mapping[Frame, Likeness], failed: Sequence[Frame], operators: Sequence[str]
    ) -> list[Frame]:
        """Give the frames of `alike` the findings of their references.

        Args:
            failed: the frames of this batch that failed; nothing can be taken from them.
            operators: the names of the operators that were skipped.

        Returns:
            The frames that have to be analysed after all.
        """
        broken = {id(frame.findings) for frame in failed}
        for reference in self._under_way:
            reference.complete = id(reference.findings) not in broken
        orphans = []
        for frame, likeness in alike.items():
            if frame.failed:
                continue
            if not likeness.reference.complete:
                orphans.append(frame)
                continue
            theirs, own = likeness.reference.findings, frame.findings
            own.texts, own.embedding = list(theirs.texts), theirs.embedding
            own.scores = dict(theirs.scores)
            own.extra[REUSED] = {
                "image_id": likeness.reference.image_id,
                "operators": list(operators),
                "pdq_distance": likeness.distance,
            }
        return orphans

    def _may_stand_for(self, last: _Reference, own: _Reference) -> bool:
        # One of an earlier batch that was never completed failed, or was interrupted.
        known = last.complete or any(last is reference for reference in self._under_way)
        return known and last.size == own.size and last.followers < self._frames


def _reference(frame: Frame) -> _Reference | None:
    prints, image = frame.findings.fingerprint, frame.findings.image
    if prints is None or image is None or not prints.pdq or prints.pdq_quality < _LEAST_QUALITY:
        return None
    return _Reference(
        frame.image_id, int(prints.pdq, 16), (image.width, image.height), frame.findings
    )
