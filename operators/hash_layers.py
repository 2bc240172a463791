"""Hashes that change while they are searched: recent changes over an index, over a larger index.

An index of a million hashes takes a second to build, and changes come one at a time or by the
hundred thousand. So changes are kept apart and override what is below them; from time to time they
are frozen and built into the index in another thread, which then takes the place of the old one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from operators.hash_index import (
    BYTES,
    MOST_DISTANCE,
    Codes,
    ExactIndex,
    Near,
    PdqIndex,
    as_words64,
    search_all,
)

FREEZE_AT = 1024
"""Recent changes that are built into an index: comparing with each costs 0.1 µs, or 0.15 ms."""
FREEZE_AT_LOADING = 131_072
_SMALL_AT_MOST = 16_384
_SMALL_SHARE = 8
"""The small index is built into the large one when it has an eighth of its hashes, so that each
hash is sorted again a few times only, however many are added."""

Key = tuple[int, bytes]
"""The number of a list, and a hash."""
_Index = TypeVar("_Index", PdqIndex, ExactIndex)


@dataclass(frozen=True, slots=True)
class _Base(Generic[_Index]):
    """Hashes in an index, and the list of each. No key is in it twice."""

    codes: Codes
    lists: NDArray[np.uint16]
    index: _Index

    def __len__(self) -> int:
        return len(self.codes)


class _Recent:
    """Changes, newest last; those that add are also rows of an array, to be compared one by one."""

    def __init__(self) -> None:
        self.changes: dict[Key, bool] = {}
        self.numbers: set[int] = set()
        self._codes = np.empty((64, BYTES), np.uint8)
        self._lists = np.empty(64, np.uint16)
        self._count = 0
        self._row: set[Key] = set()

    def set(self, key: Key, present: bool) -> None:
        self.changes[key] = present
        self.numbers.add(key[0])
        if not present or key in self._row:
            return
        self._row.add(key)
        if self._count == len(self._codes):
            # Readers keep the old arrays, which hold all that they know the count of.
            self._codes = np.concatenate([self._codes, np.empty_like(self._codes)])
            self._lists = np.concatenate([self._lists, np.empty_like(self._lists)])
        self._codes[self._count] = np.frombuffer(key[1], np.uint8)
        self._lists[self._count] = key[0]
        self._count += 1

    def rows(self) -> tuple[Codes, NDArray[np.uint16]]:
        """Hashes that were added, some of which may have been taken back since."""
        count = self._count
        return self._codes[:count], self._lists[:count]


@dataclass(frozen=True, slots=True)
class _Layers(Generic[_Index]):
    """Newest first. What is in `small` overrides `base`, and so on upwards."""

    recent: _Recent
    frozen: _Recent | None
    small_changes: Mapping[Key, bool]
    small: _Base[_Index]
    base: _Base[_Index]

    def stands(self, key: Key, level: int) -> bool:
        """Whether no layer above `level` (0 recent, 1 frozen, 2 small, 3 base) says otherwise."""
        for changes in (
            self.recent.changes,
            self.frozen.changes if self.frozen is not None else {},
            self.small_changes,
        )[: level + 1]:
            said = changes.get(key)
            if said is not None:
                return said
        return level == 3


class HashLayers(Generic[_Index]):
    """The hashes of one kind, of all lists. One thread at a time may change it, another may build,
    and any may search."""

    def __init__(self, index_of: type[_Index]) -> None:
        self._index_of: type[_Index] = index_of
        empty = self._indexed(np.empty((0, BYTES), np.uint8), np.empty(0, np.uint16))
        self._layers: _Layers[_Index] = _Layers(_Recent(), None, {}, empty, empty)

    def __len__(self) -> int:
        """About how many there are: what is added twice counts twice until it is built in."""
        layers = self._layers
        recent = [layers.recent.changes, layers.frozen.changes if layers.frozen else {}]
        return len(layers.base) + len(layers.small) + sum(len(changes) for changes in recent)

    def set(self, number: int, code: bytes, present: bool) -> None:
        """Add a hash to a list, or take it away."""
        self._layers.recent.set((number, code), present)

    def freeze_if_due(self, loading: bool) -> bool:
        """Whether there is something to `build`. Not to be called while that is done."""
        layers = self._layers
        if layers.frozen is not None:
            return True  # building failed the last time
        if len(layers.recent.changes) < (FREEZE_AT_LOADING if loading else FREEZE_AT):
            return False
        self._layers = replace(layers, recent=_Recent(), frozen=layers.recent)
        return True

    def build(self) -> None:
        """Build what was frozen into an index, and put that into force."""
        layers = self._layers
        if layers.frozen is None:
            return
        changes = {**layers.small_changes, **layers.frozen.changes}
        codes, lists = _added(changes)
        if len(changes) < max(_SMALL_AT_MOST, len(layers.base) // _SMALL_SHARE):
            small = self._indexed(codes, lists)
            self._layers = replace(self._layers, frozen=None, small_changes=changes, small=small)
            return
        kept = _not_in(changes, layers.base)
        base = self._indexed(
            np.concatenate([layers.base.codes[kept], codes]),
            np.concatenate([layers.base.lists[kept], lists]),
        )
        empty = self._indexed(codes[:0], lists[:0])
        self._layers = replace(self._layers, frozen=None, small_changes={}, small=empty, base=base)

    def _indexed(self, codes: Codes, lists: NDArray[np.uint16]) -> _Base[_Index]:
        return _Base(codes, lists, self._index_of(codes))


class PdqLayers(HashLayers[PdqIndex]):
    """PDQ hashes, found by nearness."""

    def __init__(self) -> None:
        super().__init__(PdqIndex)

    def near(self, queries: Codes) -> Iterator[tuple[int, int, bytes, int]]:
        """Each hash within 31 bits of a query: the query's number, the list's, the hash, and the
        differing bits."""
        layers = self._layers
        wanted = as_words64(queries)
        for level, recent in enumerate((layers.recent, layers.frozen)):
            if recent is not None:
                codes, lists = recent.rows()
                found = search_all(as_words64(codes), wanted, MOST_DISTANCE)
                yield from _standing(layers, level, found, codes, lists)
        for level, base in ((2, layers.small), (3, layers.base)):
            if len(base):
                found = base.index.search(queries)
                yield from _standing(layers, level, found, base.codes, base.lists)


class ExactLayers(HashLayers[ExactIndex]):
    """Hashes that are found only as they are."""

    def __init__(self) -> None:
        super().__init__(ExactIndex)

    def lists_of(self, code: bytes) -> list[int]:
        """The numbers of the lists that `code` is on."""
        layers = self._layers
        numbers = set()
        for recent in (layers.recent, layers.frozen):
            if recent is not None:
                numbers |= {
                    number for number in tuple(recent.numbers) if (number, code) in recent.changes
                }
        for base in (layers.small, layers.base):
            if len(base):
                numbers |= {int(base.lists[row]) for row in base.index.rows_of(code)}
        return sorted(number for number in numbers if layers.stands((number, code), 3))


def _standing(
    layers: _Layers[PdqIndex], level: int, found: Near, codes: Codes, lists: NDArray[np.uint16]
) -> Iterator[tuple[int, int, bytes, int]]:
    for query, row, distance in zip(found.queries, found.rows, found.distances, strict=True):
        key = (int(lists[row]), codes[row].tobytes())
        if layers.stands(key, level):
            yield int(query), *key, int(distance)


def _added(changes: Mapping[Key, bool]) -> tuple[Codes, NDArray[np.uint16]]:
    keys = [key for key, present in changes.items() if present]
    codes = np.frombuffer(b"".join(code for _, code in keys), np.uint8).reshape(-1, BYTES)
    return codes, np.array([number for number, _ in keys], np.uint16)


def _not_in(changes: Mapping[Key, bool], base: _Base[_Index]) -> NDArray[np.bool_]:
    """Which rows of `base` are not among `changes`."""
    kept = np.ones(len(base), np.bool_)
    changed = np.frombuffer(b"".join(code for _, code in changes), np.uint64)[:: BYTES // 8]
    # Comparing eight bytes leaves few to be looked at one by one.
    for row in np.flatnonzero(np.isin(as_words64(base.codes)[:, 0], changed)):
        kept[row] = (int(base.lists[row]), base.codes[row].tobytes()) not in changes
    return kept
