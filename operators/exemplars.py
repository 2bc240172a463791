"""Pictures that are banned by their embedding: what looks like one of them is told of.

Hashes miss what was cropped or redrawn; an embedding does not. Exemplars are few beside hashes, as
each is chosen by a person, so they are held in memory and compared by one matrix product. For a
batch of 16 images and 1280 numbers each that takes 0.05 ms an image beside 1000 exemplars and 1 ms
beside 20 000, where a query to a vector store costs a millisecond and a network that may be away.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from operators.ban_records import BannedExemplar

_logger = logging.getLogger(__name__)

MOST_EXEMPLARS = 20_000
"""Of one embedder: 100 MB. Further ones are left out, which is logged."""

_Key = tuple[int, str]


class _Exemplars:
    """Those of one embedder, as the rows of a matrix.

    Whoever compares goes by the number of rows at that moment: rows are only ever added behind, or
    emptied, which leaves a vector that is near to nothing.
    """

    def __init__(self, dimension: int) -> None:
        self.matrix: NDArray[np.float32] = np.empty((16, dimension), np.float32)
        self.keys: list[_Key | None] = []
        self.rows: dict[_Key, int] = {}

    def put(self, key: _Key, vector: NDArray[np.float32]) -> bool:
        """Whether there was room."""
        row = self.rows.get(key)
        if row is None:
            row = len(self.keys)
            if len(self.rows) >= MOST_EXEMPLARS:
                return False
            if row == len(self.matrix):
                self.matrix = np.concatenate([self.matrix, np.empty_like(self.matrix)])
            self.matrix[row] = vector
            self.rows[key] = row
            self.keys.append(key)
        else:
            self.matrix[row] = vector
        return True

    def remove(self, key: _Key) -> None:
        row = self.rows.pop(key, None)
        if row is not None:
            self.keys[row] = None
            self.matrix[row] = 0.0

    def without_gaps(self) -> _Exemplars:
        """Itself, or a smaller one in its place once most rows are empty."""
        if len(self.keys) < 64 or len(self.rows) > len(self.keys) // 2:
            return self
        smaller = _Exemplars(self.matrix.shape[1])
        for key, row in self.rows.items():
            smaller.put(key, self.matrix[row])
        return smaller


class Exemplars:
    """All exemplars, by embedder. May be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of_model: dict[str, _Exemplars] = {}
        self._full = False

    def __len__(self) -> int:
        return sum(len(exemplars.rows) for exemplars in tuple(self._of_model.values()))

    def add(self, number: int, record: BannedExemplar) -> None:
        """Add an exemplar to the list with this number, in the place of one of the same picture.

        One that is no vector of unit length, or of another length than others of its embedder, is
        left out, which is logged.
        """
        vector = vector_of(record)
        if vector is None:
            _logger.warning("exemplar %s of list %s holds no vector", record.hash, record.list)
            return
        key = (number, record.hash)
        with self._lock:
            for model, others in self._of_model.items():
                if model != record.model:
                    others.remove(key)  # the picture was embedded anew
            exemplars = self._of_model.get(record.model)
            if exemplars is None or not exemplars.rows:
                exemplars = self._of_model[record.model] = _Exemplars(len(vector))
            if exemplars.matrix.shape[1] != len(vector):
                _logger.warning(
                    "exemplar %s of list %s has %d numbers, others of %s have %d",
                    *(record.hash, record.list, len(vector)),
                    *(record.model, exemplars.matrix.shape[1]),
                )
            elif not exemplars.put(key, vector) and not self._full:
                self._full = True
                _logger.error(
                    "exemplar %s of list %s and further ones are left out: there are more than %d",
                    *(record.hash, record.list, MOST_EXEMPLARS),
                )

    def remove(self, number: int, entry: str) -> None:
        """Take the exemplar of the picture with this content id away from a list."""
        with self._lock:
            for model, exemplars in self._of_model.items():
                exemplars.remove((number, entry))
                self._of_model[model] = exemplars.without_gaps()

    def near(
        self, model: str, vectors: Sequence[Sequence[float]], limits: Mapping[int, float]
    ) -> Iterator[tuple[int, int, str, float]]:
        """Each exemplar that is near one of `vectors`: the vector's position, the list's number,
        the exemplar, and the cosine distance.

        Args:
            model: `name@version` of the embedder.
            limits: the largest distance, by list; lists that are not among them are left out.
        """
        if not vectors or not limits:
            return
        exemplars = self._of_model.get(model)
        if exemplars is None or exemplars.matrix.shape[1] != len(vectors[0]):
            return
        keys = exemplars.keys
        count = len(keys)
        # torch and not numpy, whose BLAS would bring more threads than there are processors.
        known = torch.from_numpy(exemplars.matrix[:count])
        asked = torch.tensor(np.asarray(vectors, np.float32))
        distances = (1.0 - asked @ known.T).numpy()
        largest = max(limits.values())
        for position, row in zip(*np.nonzero(distances <= largest), strict=True):
            key = keys[row]
            if key is None:
                continue
            number, entry = key
            distance = float(distances[position, row])
            if distance <= limits.get(number, -1.0):
                # A picture's distance to itself is nothing, whatever rounding makes of it.
                yield int(position), number, entry, max(round(distance, 4), 0.0)


def vector_of(record: BannedExemplar) -> NDArray[np.float32] | None:
    """The embedding that `record` holds, with unit length; `None` if it holds none."""
    if len(record.vector) % 2:
        return None
    vector = np.frombuffer(record.vector, "<f2").astype(np.float32)
    length = float(np.linalg.norm(vector))
    # NaN and infinity fail this too.
    return vector / np.float32(length) if 0.5 < length < 2.0 else None


def packed(vector: Sequence[float]) -> bytes:
    """An embedding as records hold it: half the size, and off by less than 0.001."""
    return np.asarray(vector, "<f2").tobytes()
