"""Which partition a key belongs to, as every Kafka client decides it.

Kafka's own partitioner hashes keys with MurmurHash2, and consumers may rely on one key always
meeting the same partition, whoever produced it. aiokafka has the same function, byte by byte; here
it goes word by word, which is quicker.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

_SEED = 0x9747B28C
_MIX = 0x5BD1E995
_MASK = 0xFFFF_FFFF


@lru_cache(4096)  # an image has several records, in one block
def murmur2(key: bytes) -> int:
    """MurmurHash2 of `key` with Kafka's seed, 32 bits.

    Source: `org.apache.kafka.common.utils.Utils.murmur2`.
    """
    length = len(key)
    mixed = _SEED ^ length
    words = length >> 2
    for word in struct.unpack_from(f"<{words}I", key):
        word = (word * _MIX) & _MASK
        mixed = ((mixed * _MIX) & _MASK) ^ (((word ^ (word >> 24)) * _MIX) & _MASK)
    rest = key[words << 2 :]
    if rest:
        mixed = ((mixed ^ int.from_bytes(rest, "little")) * _MIX) & _MASK
    mixed = ((mixed ^ (mixed >> 13)) * _MIX) & _MASK
    return mixed ^ (mixed >> 15)


def partition_of(key: bytes, partitions: Sequence[int]) -> int:
    """The one of `partitions` (all of a topic's, ascending) that records of `key` go to."""
    return partitions[(murmur2(key) & 0x7FFF_FFFF) % len(partitions)]
