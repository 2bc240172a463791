"""How large a decoded picture has to be for an operator, and how far decoding may reduce it.

A network that is fed 224 x 224 pixels sees next to nothing of a photo's 12 megapixels, and a JPEG
can be decoded at a half, a quarter or an eighth of its sides in a fraction of the time, because the
coefficients of finer detail are passed over. So operators say what they need, and decoding keeps to
the largest of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from operators.image_facts import ImageHeader

REDUCTIONS = (8, 4, 2)
"""What sides may be divided by. JPEG libraries have fast code for these; the steps between them
(3/8, 5/8 …) take as long as the next larger one."""

MARGIN = 2.0
"""How much larger than a network's input a picture is kept, so that the network is fed almost what
it would be fed from the full picture. Of six photos in five sizes the embedding's cosine with that
of the full picture was at least 0.998 with 2, 0.994 with 1.2 and 0.988 with 1 (docs/decoding.md).
"""


@dataclass(frozen=True, slots=True)
class LeastSize:
    """A picture that has both is as good as any larger one. 0 asks for nothing.

    Attributes:
        shorter: pixels that its shorter side has at least.
        longer: pixels that its longer side has at least.
    """

    shorter: int = 0
    longer: int = 0

    @classmethod
    def to_cover(cls, size: tuple[int, int]) -> LeastSize:
        """For a network whose whole input, (height, width), is filled from the picture."""
        return cls(shorter=math.ceil(max(size) * MARGIN))

    @classmethod
    def to_fit(cls, size: tuple[int, int]) -> LeastSize:
        """For a network whose input, (height, width), the picture is letterboxed into."""
        return cls(longer=math.ceil(max(size) * MARGIN))

    def joined(self, other: LeastSize) -> LeastSize:
        """What is enough for both."""
        return LeastSize(max(self.shorter, other.shorter), max(self.longer, other.longer))

    def has_room(self, width: int, height: int) -> bool:
        """Whether a picture of this size is enough."""
        return min(width, height) >= self.shorter and max(width, height) >= self.longer


def largest(sizes: Iterable[LeastSize | None]) -> LeastSize | None:
    """What is enough for all; `None`, the full size, if one of them needs that."""
    joined = LeastSize()
    for size in sizes:
        if size is None:
            return None
        joined = joined.joined(size)
    return joined


def reduced(side: int, reduction: int) -> int:
    """A side in pixels after a reduction: JPEG libraries round up."""
    return -(-side // reduction)


def reduction_for(header: ImageHeader, least: LeastSize | None) -> int:
    """What the sides of this image may be divided by when it is decoded: 1, 2, 4 or 8.

    More than 1 for whole, ordinary JPEGs only: other formats have to be decoded in full, and a
    truncated file is better looked at with all that is left of it.
    """
    if least is None or not header.plain or header.truncated:
        return 1
    for reduction in REDUCTIONS:
        if least.has_room(reduced(header.width, reduction), reduced(header.height, reduction)):
            return reduction
    return 1
