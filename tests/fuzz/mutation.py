"""Turns well-formed bytes into hostile ones: flipped, cut, repeated, spliced, with extreme numbers.

Plain random mutation from a seed: a run can be repeated exactly, and needs nothing but Python.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Sequence

_EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 2**32 - 1)
_LARGEST = 200_000
_PNG = b"\x89PNG\r\n\x1a\n"


class Mutator:
    """Makes inputs from `seeds`; the same `chance` makes the same inputs."""

    def __init__(
        self, seeds: Sequence[bytes], chance: random.Random, words: Sequence[bytes] = ()
    ) -> None:
        """`words`: what means something in this format; inserted now and then."""
        self._seeds = list(seeds)
        self._chance = chance
        self._words = list(words)

    def next(self) -> bytes:
        """One input: a seed after 1 to 8 changes."""
        chance = self._chance
        content = bytearray(chance.choice(self._seeds))
        # Most meaning lies at the front, where headers are.
        reach = max(1, len(content) if chance.random() < 0.5 else min(len(content), 128))
        for _ in range(chance.choice((1, 1, 2, 2, 3, 4, 8))):
            self._change(content, chance.randrange(reach))
        del content[_LARGEST:]
        if content.startswith(_PNG) and chance.random() < 0.8:
            _mend_checksums(content)
        return bytes(content)

    def _change(self, content: bytearray, at: int) -> None:
        chance = self._chance
        match chance.randrange(9):
            case 0:
                content[at : at + 1] = bytes((chance.randrange(256),))
            case 1 if content:
                content[at % len(content)] ^= 1 << chance.randrange(8)
            case 2:
                number = chance.choice(_EXTREMES)
                layout = chance.choice((">I", "<I", ">H", "<H", "B"))
                packed = struct.pack(layout, number & (256 ** struct.calcsize(layout) - 1))
                content[at : at + len(packed)] = packed
            case 3:
                del content[at : at + chance.choice((1, 2, 4, 16, 256))]
            case 4:
                piece = content[at : at + chance.choice((1, 4, 12, 64, 1024))]
                content[at:at] = piece * chance.choice((1, 2, 10, 300))
            case 5:
                other = chance.choice(self._seeds)
                start = chance.randrange(len(other) + 1)
                content[at:at] = other[start : start + chance.choice((4, 32, 512))]
            case 6:
                if chance.random() < 0.3:
                    del content[at:]
                else:
                    del content[chance.randrange(len(content) + 1) :]
            case 7 if self._words:
                content[at : at + chance.choice((0, 0, 4))] = chance.choice(self._words)
            case _:
                content[at:at] = chance.randbytes(chance.choice((1, 2, 4, 16)))


def _mend_checksums(content: bytearray) -> None:
    """Make the checksums of a PNG right again, without which readers look no further."""
    position = len(_PNG)
    while position + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, position)
        end = position + 8 + length
        if end + 4 > len(content):
            return
        struct.pack_into(">I", content, end, zlib.crc32(content[position + 4 : end]))
        position = end + 4
