"""Finds groups of nearly the same picture among the images of a time range.

Every image is compared with every other, which is quick as products of matrices and grows with the
square of their number, so a few thousand are compared at once and no more. A group gathers around
its earliest image: all of it is as similar to that one as was asked for. Were likeness passed on
from image to image, a slow pan of a camera would become one group.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from imagewire.api.work_thread import BusyError, WorkThread
from sinks.qdrant.reader import Placed, VectorReader

MOST_IMAGES = 4000
"""Compared at once: 20 MB of vectors with 1280 numbers, and a second or so of one core."""

_AT_ONCE = 256
"""Images that are compared with all others in one product: 4 MB of similarities."""
_MOST_WAITING = 3
_SECONDS_EACH = 5


@dataclass(frozen=True, slots=True)
class Group:
    """Images that are nearly the same, the earliest first. `similarity`: the lowest cosine between
    the earliest and any other."""

    images: tuple[Placed, ...]
    similarity: float


@dataclass(frozen=True, slots=True)
class Duplicates:
    """The groups, the largest first; how many images were compared, and whether that was all."""

    groups: tuple[Group, ...]
    looked_at: int
    complete: bool


class Comparisons:
    """One comparison after the other: each holds its vectors in memory. Call `close`."""

    def __init__(self) -> None:
        self._thread = WorkThread("comparisons of images", _MOST_WAITING)
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0

    async def duplicates(
        self,
        reader: VectorReader,
        since: datetime,
        until: datetime,
        feeds: Sequence[str] | None,
        threshold: float,
        most: int = MOST_IMAGES,
    ) -> Duplicates:
        """Groups of images that were captured between `since` and `until`.

        Args:
            threshold: cosine from which on two images are nearly the same.
            most: images that are compared at once.

        Raises:
            BusyError: others wait already.
            TransientSinkError, PermanentSinkError: as `VectorReader.vectors`.
        """
        if self._waiting >= _MOST_WAITING:
            raise BusyError("comparisons of images", self._waiting, _SECONDS_EACH * self._waiting)
        self._waiting += 1
        try:
            async with self._turn:
                found = await reader.vectors(most + 1, feeds, since, until)
                complete = len(found) <= most
                chosen = found[:most]
                groups = await self._thread.run(lambda: grouped(chosen, threshold))
        finally:
            self._waiting -= 1
        return Duplicates(tuple(groups), len(chosen), complete)

    async def close(self) -> None:
        """Wait for the comparison at hand."""
        await asyncio.to_thread(self._thread.close)


def grouped(images: Sequence[Placed], threshold: float) -> list[Group]:
    """Groups of at least two, the largest first."""
    if len(images) < 2:
        return []
    ordered = sorted(images, key=lambda each: (each.event_time, each.image_id))
    vectors = _unit(np.stack([each.vector for each in ordered]))
    taken = np.zeros(len(ordered), bool)
    groups = []
    for start in range(0, len(ordered), _AT_ONCE):
        similarities = vectors[start : start + _AT_ONCE] @ vectors[start:].T
        for row, similarity in enumerate(similarities):
            first = start + row
            if taken[first]:
                continue
            # Earlier ones have had their turn; this one is not taken, so none of them is near.
            near = np.flatnonzero((similarity >= threshold) & ~taken[start:])
            near = near[near > row]
            if not near.size:
                continue
            taken[start + near] = True
            members = (ordered[first], *(ordered[start + each] for each in near))
            groups.append(Group(members, _shown(float(similarity[near].min()))))
    return sorted(groups, key=lambda group: (-len(group.images), group.images[0].event_time))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = vectors / np.maximum(norms, np.float32(1e-12))
    return scaled


def _shown(similarity: float) -> float:
    return math.floor(min(similarity, 1.0) * 1e6) / 1e6
