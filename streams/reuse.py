"""Findings of identical content are reused: the same bytes are analysed once.

Feeds repeat themselves: a picture is posted many times, or a folder is published twice. Frames are
told apart by the SHA-256 of their bytes before they are decoded. One whose content was analysed
before takes over those findings; one whose twin is being analysed waits for it. Each keeps its own
id, and its verdict is given anew, since feed and metadata may differ.
"""

from __future__ import annotations

import hashlib
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from operators.findings import Embedding, Findings, Fingerprint
from operators.frame import Frame, Lane
from operators.known_images import KNOWN
from operators.near_identical import REUSED

Kind = Literal["cached", "in-flight", "new"]

_NOT_TO_KEEP = frozenset({REUSED, KNOWN})
"""Findings of a picture that only looked the same are not this content's own, and those of a banned
picture, which no operator looked at, are not all that there is to find."""


@dataclass(slots=True)
class _Known:
    """Findings that are kept, their embedding apart: a list of numbers takes 32 bytes for each, an
    array of doubles eight, and gives back the same ones."""

    image_id: str
    findings: Findings
    model: str | None
    vector: array[float]
    size: int

    @classmethod
    def of(cls, frame: Frame) -> _Known:
        # What is on a list today may not be tomorrow.
        findings = msgspec.structs.replace(
            frame.findings, verdict=None, hashes=[], similar=[], embedding=None
        )
        embedding = frame.findings.embedding
        vector = array("d", embedding.vector if embedding is not None else ())
        size = _footprint(findings) + vector.itemsize * len(vector)
        model = embedding.model if embedding is not None else None
        return cls(frame.image_id, findings, model, vector, size)

    def for_another(self) -> Findings:
        """The findings for another frame of the same content."""
        findings = _copy(self.findings, self.image_id)
        if self.model is not None:
            findings.embedding = Embedding(self.model, self.vector.tolist())
        return findings


@dataclass(slots=True)
class _UnderWay:
    """Content that is being analysed in `leader`, and those that wait for it.

    They share one copy of the bytes, in case the leader comes to nothing.
    """

    leader: Frame
    waiting: list[Frame] = field(default_factory=list)


class Reuse:
    """Findings by content, the most recently used of them. May be used from several threads.

    It holds for one set of models: make another when they change.
    """

    def __init__(self, entries: int, max_bytes: int, *, by_feed: bool = False) -> None:
        """
        Args:
            entries: most findings kept.
            max_bytes: most memory that they take, by estimate.
            by_feed: findings are reused within a feed only, since what is looked for depends on it.
        """
        self._by_feed = by_feed
        self._entries = entries
        self._max_bytes = max_bytes
        self._bytes = 0
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._under_way: dict[str, _UnderWay] = {}
        self._alone: set[Frame] = set()
        self._lock = threading.Lock()

    @property
    def size(self) -> tuple[int, int]:
        """How many findings are kept, and their bytes by estimate."""
        return len(self._known), self._bytes

    def sort(self, frames: Sequence[Frame]) -> dict[Kind, list[Frame]]:
        """Hash the content of `frames` and sort them by what is to be done.

        Returns:
            `new` frames, which are to be analysed, and then given to `finish` or `give_up`;
            `cached` ones, whose findings have been filled; and those that wait for a twin that is
            `in-flight`, which are kept here and come back when that one is finished or given up.
        """
        for frame in frames:
            if frame.findings.fingerprint is not None:
                continue  # hashed before
            # A gigabyte a second, with the interpreter's lock released.
            digest = hashlib.sha256(frame.content or b"").hexdigest()
            frame.findings.fingerprint = Fingerprint(content_id=digest)
        sorted_frames: dict[Kind, list[Frame]] = {"cached": [], "in-flight": [], "new": []}
        with self._lock:
            for frame in frames:
                sorted_frames[self._sort(frame)].append(frame)
        return sorted_frames

    def finish(self, frame: Frame) -> list[Frame]:
        """Keep the findings of a frame that was analysed.

        Returns:
            The frames that waited for it, with its findings.
        """
        content_id = self._content(frame)
        with self._lock:
            if not frame.findings.extra.keys() & _NOT_TO_KEEP:
                self._keep(content_id, frame)
            waiting = self._end(content_id, frame)
        for other in waiting:
            other.findings = _copy(frame.findings, frame.image_id)
            other.content = None
        return waiting

    def give_up(self, frame: Frame) -> list[Frame]:
        """A frame failed or was let go, wherever it was.

        Returns:
            The frames that waited for it, untouched. `sort` will call each of them new: were they
            to wait for one another, content that always fails would be tried once for each pair.
        """
        with self._lock:
            self._alone.discard(frame)
            waiting = self._end(self._content(frame), frame)
            self._alone.update(waiting)
            return waiting

    def forget(self, covered: Callable[[str, str], bool]) -> int:
        """Drop findings of images that were erased; how many there were.

        Args:
            covered: whether an image, by its id and content id, was erased.
        """
        with self._lock:
            gone = [
                key
                for key, known in self._known.items()
                if covered(known.image_id, _content_of(known))
            ]
            for key in gone:
                self._bytes -= self._known.pop(key).size
        return len(gone)

    def _sort(self, frame: Frame) -> Kind:
        content_id = self._content(frame)
        if frame in self._alone:
            self._alone.remove(frame)
            return "new"
        known = self._known.get(content_id)
        if known is not None:
            self._known.move_to_end(content_id)
            frame.findings = known.for_another()
            frame.content = None
            return "cached"
        under_way = self._under_way.get(content_id)
        if under_way is None:
            self._under_way[content_id] = _UnderWay(frame)
            return "new"
        if under_way.leader.lane is Lane.BULK and frame.lane is Lane.LIVE:
            return "new"  # it would wait in the other lane
        if under_way.waiting:
            frame.content = under_way.waiting[0].content
        under_way.waiting.append(frame)
        return "in-flight"

    def _content(self, frame: Frame) -> str:
        """What frames that may share findings have in common."""
        prints = frame.findings.fingerprint
        content_id = prints.content_id if prints is not None else ""
        return f"{content_id} {frame.feed}" if self._by_feed else content_id

    def _end(self, content_id: str, leader: Frame) -> list[Frame]:
        under_way = self._under_way.get(content_id)
        if under_way is None or under_way.leader is not leader:
            return []
        del self._under_way[content_id]
        return under_way.waiting

    def _keep(self, content_id: str, frame: Frame) -> None:
        known = _Known.of(frame)
        if known.size > self._max_bytes:
            return
        if (old := self._known.pop(content_id, None)) is not None:
            self._bytes -= old.size
        self._known[content_id] = known
        self._bytes += known.size
        while len(self._known) > self._entries or self._bytes > self._max_bytes:
            _, oldest = self._known.popitem(last=False)
            self._bytes -= oldest.size


def _content_of(known: _Known) -> str:
    prints = known.findings.fingerprint
    return prints.content_id if prints is not None else ""


def _copy(findings: Findings, image_id: str) -> Findings:
    """The same findings for another frame, without a verdict. Detections, lines and embeddings
    cannot be changed and are shared; what holds them is not."""
    return msgspec.structs.replace(
        findings,
        objects=list(findings.objects),
        texts=list(findings.texts),
        scores=dict(findings.scores),
        hashes=list(findings.hashes),
        similar=list(findings.similar),
        extra=findings.extra | {REUSED: {"image_id": image_id}},
        models=dict(findings.models),
        verdict=None,
    )


def _footprint(findings: Findings) -> int:
    """Bytes that findings without their embedding take in memory: CPython's sizes for what there
    can be many of."""
    text = sum(len(line.text) for line in findings.texts)
    extra = len(msgspec.json.encode(findings.extra)) if findings.extra else 0
    return (
        2_000
        + 350 * len(findings.objects)
        + 800 * len(findings.texts)
        + 4 * text
        + 150 * len(findings.scores)
        + 8 * extra
    )
