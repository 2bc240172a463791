"""Banlists as a worker holds them: a million hashes in arrays, changed while they are searched.

Hashes stand in layers. A few recent changes are compared one by one; an index of some thousands and
one of all the rest are never changed, but replaced by larger ones that a thread builds meanwhile.
Searching never waits for that, and a ban is in force as soon as `apply` returns. What people wrote
about an entry is not kept: it stays on the topic, for those who list and export.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from operators.ban_records import BanKey, Banlist, BannedExemplar, BannedHash, BanRecord, HashKind
from operators.exemplars import Exemplars
from operators.findings import ACTIONS, Fingerprint, HashMatch, SimilarMatch
from operators.hash_layers import ExactLayers, PdqLayers
from operators.pdq_turns import TURNS, turned

_logger = logging.getLogger(__name__)

MOST_LISTS = 4096
"""A sixteenth of what a list's number could be; each costs next to nothing."""
MOST_MATCHES = 16
"""Matches kept of one image: those with the strictest action, then the nearest. A list with
thousands of near-duplicates would otherwise make findings of any size."""


class Change(NamedTuple):
    """A ban that is made (`record` given) or taken back."""

    key: BanKey
    record: BanRecord | None


class Banlists:
    """All lists and their entries. May be used from several threads."""

    def __init__(self, *, turns: bool = True) -> None:
        """
        Args:
            turns: also find pictures that were mirrored or turned by quarters.
        """
        self._turns = turns
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}
        self._lists: dict[int, Banlist] = {}
        self._pdq = PdqLayers()
        self._sha256 = ExactLayers()
        self._exemplars = Exemplars()
        self._builder = ThreadPoolExecutor(1, "banlists")
        self._building: Future[None] | None = None
        self._loading = False
        self._lists_left_out = False

    def apply(self, changes: Iterable[Change]) -> None:
        """Make and take back bans, in their order. They are in force on return."""
        with self._lock:
            for key, record in changes:
                number = self._number(key.list)
                if number is None:
                    continue
                if key.kind == "list":
                    if isinstance(record, Banlist):
                        self._lists[number] = record
                    else:
                        self._lists.pop(number, None)
                elif key.kind == "exemplar":
                    if isinstance(record, BannedExemplar):
                        self._exemplars.add(number, record)
                    else:
                        self._exemplars.remove(number, key.hash)
                else:
                    layers = self._pdq if key.kind == "pdq" else self._sha256
                    layers.set(number, bytes.fromhex(key.hash), isinstance(record, BannedHash))
        self._build_if_due()

    def begin_loading(self) -> None:
        """Very many changes follow before the first search: build less often."""
        self._loading = True

    def end_loading(self) -> None:
        """The changes that `begin_loading` announced were applied; waits until all is built."""
        self._loading = False
        while True:
            self._build_if_due()
            building = self._building
            if building is None or building.done():
                return
            building.result()

    def close(self) -> None:
        """End the thread that builds; what it is building is finished first."""
        self._builder.shutdown(wait=True, cancel_futures=True)

    @property
    def lists(self) -> list[Banlist]:
        """The settings of every list."""
        with self._lock:
            return list(self._lists.values())

    @property
    def counts(self) -> dict[str, int]:
        """How many entries of each kind there are, whatever their list."""
        return {
            "pdq": len(self._pdq),
            "sha256": len(self._sha256),
            "exemplar": len(self._exemplars),
        }

    def match_content(self, content_id: str) -> list[HashMatch]:
        """Entries whose SHA-256 is `content_id` (64 hexadecimal digits)."""
        if not self._lists or not len(self._sha256):
            return []
        # Lists may go while they are asked.
        known = dict(self._lists)
        return [
            _match(banlist, "sha256", content_id)
            for number in self._sha256.lists_of(bytes.fromhex(content_id))
            if (banlist := known.get(number)) and consulted(banlist.enabled_ratio, content_id)
        ]

    def match_picture(self, fingerprint: Fingerprint) -> list[HashMatch]:
        """Entries whose PDQ hash is near that of `fingerprint`, the nearest first.

        Costs about 0.45 ms of processor time for a million hashes, a fifth of it without `turns`.
        """
        if not self._lists or not fingerprint.pdq or not len(self._pdq):
            return []
        quality = fingerprint.pdq_quality
        if all(quality < banlist.min_quality for banlist in self.lists):
            return []
        code = bytes.fromhex(fingerprint.pdq)
        known = dict(self._lists)
        best: dict[tuple[int, bytes], tuple[int, int]] = {}
        for turn, number, entry, distance in self._pdq.near(
            turned(code)[: None if self._turns else 1]
        ):
            banlist = known.get(number)
            if (
                banlist is None
                or distance > banlist.max_distance
                or quality < banlist.min_quality
                or not consulted(banlist.enabled_ratio, fingerprint.content_id)
            ):
                continue
            found = (distance, turn)
            best[number, entry] = min(found, best.get((number, entry), found))
        matches = [
            _match(known[number], "pdq", entry.hex(), distance, TURNS[turn])
            for (number, entry), (distance, turn) in best.items()
        ]
        return strictest(matches)

    def match_embedding(
        self, model: str, vectors: Sequence[Sequence[float]], content_ids: Sequence[str]
    ) -> list[list[SimilarMatch]]:
        """For each embedding, the exemplars near to it, the nearest first.

        Args:
            model: `name@version` of the embedder; exemplars of others are not compared.
            vectors: of unit length.
            content_ids: of the images, in the same order.
        """
        found: list[list[SimilarMatch]] = [[] for _ in vectors]
        limits = {
            number: banlist.max_embedding_distance for number, banlist in tuple(self._lists.items())
        }
        for position, number, entry, distance in self._exemplars.near(model, vectors, limits):
            banlist = self._lists.get(number)
            if banlist is None or not consulted(banlist.enabled_ratio, content_ids[position]):
                continue
            found[position].append(
                SimilarMatch(entry, banlist.name, distance, banlist.reason, banlist.action)
            )
        for matches in found:
            matches.sort(key=lambda match: (-ACTIONS.index(match.action), match.distance))
            del matches[MOST_MATCHES:]
        return found

    @property
    def has_exemplars(self) -> bool:
        return bool(self._lists) and len(self._exemplars) > 0

    def _number(self, name: str) -> int | None:
        """The list's number, which stays its own for as long as the worker runs: entries may come
        before their list, and a list may come back."""
        number = self._numbers.get(name)
        if number is None:
            if len(self._numbers) >= MOST_LISTS:
                if not self._lists_left_out:
                    _logger.error("banlist %s and further ones are left out: there are more than "
                                  "%d", name, MOST_LISTS)  # fmt: skip
                    self._lists_left_out = True
                return None
            number = self._numbers[name] = len(self._numbers)
        return number

    def _build_if_due(self) -> None:
        with self._lock:
            if self._building is not None and not self._building.done():
                return
            due = [
                layers
                for layers in (self._pdq, self._sha256)
                if layers.freeze_if_due(self._loading)
            ]
            if due:
                self._building = self._builder.submit(self._build, due)

    def _build(self, due: Sequence[PdqLayers | ExactLayers]) -> None:
        for layers in due:
            try:
                layers.build()
            except Exception:
                # Searching goes on with the layers that there are; the next change tries again.
                _logger.exception("the index of banned hashes could not be built")


def _match(
    banlist: Banlist, kind: HashKind, entry: str, distance: int = 0, turn: str = ""
) -> HashMatch:
    return HashMatch(banlist.name, kind, distance, banlist.reason, banlist.action, entry, turn)


def consulted(ratio: float, content_id: str) -> bool:
    """Whether a list with this `enabled_ratio` is consulted for this image.

    One number between 0 and 1 is drawn for each image from its bytes, and compared with every
    list's ratio, as Meta's hasher-matcher-actioner does with a seed that callers choose.
    """
    if ratio >= 1.0:
        return True
    return int(content_id[:13] or "0", 16) / 16**13 < ratio


def strictest(matches: list[HashMatch]) -> list[HashMatch]:
    """At most `MOST_MATCHES` of `matches`: by action, then by distance."""
    matches.sort(key=lambda match: (-ACTIONS.index(match.action), match.distance))
    return matches[:MOST_MATCHES]
