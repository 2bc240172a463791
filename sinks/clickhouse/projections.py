"""A few numbers of each embedding, so that SQL can see whether pictures change.

Embeddings live in Qdrant, where distributions cannot be asked for. Sums of a vector's components
with random signs keep what drift looks for at a hundredth of the size: if the vectors' distribution
moves, that of a random projection moves with probability 1 (Cramér and Wold 1936), and random signs
serve as well as random normal numbers (Achlioptas 2003, "Database-friendly random projections").
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

COUNT = 8
"""Numbers kept of each embedding: several, since a shift may be small along any one direction."""

PROJECTION = "signs-v1-seed1"
"""Names the projection in every row: how it is made, its version, and its seed. Values are only
compared under the same name; whoever changes anything below gives it another."""


@functools.lru_cache(maxsize=16)
def signs(dimension: int) -> npt.NDArray[np.float64]:
    """The projection's signs: -1 or 1, float64, of shape (`COUNT`, `dimension`).

    They are the bits of SHAKE-256 over the projection's name and the dimension, the highest of each
    byte first, so that any program can make the same ones, whatever random numbers it has.
    """
    digest = hashlib.shake_256(f"{PROJECTION}/{dimension}".encode()).digest(
        (COUNT * dimension + 7) // 8
    )
    bits = np.unpackbits(np.frombuffer(digest, np.uint8))[: COUNT * dimension]
    return np.where(bits.reshape(COUNT, dimension) == 1, 1.0, -1.0)


def projected(vector: Sequence[float]) -> list[float]:
    """The `COUNT` projections of an embedding; none of an empty one.

    Of a vector of unit length each is about 0 ± 1 whatever the dimension, since over random signs
    its mean is 0 and its variance the vector's squared length.
    """
    if not vector:
        return []
    projections: list[float] = (signs(len(vector)) @ np.asarray(vector)).tolist()
    return projections
