"""Whether a JPEG's tables are what the standard says, for decoders that nothing contains.

A decoder on a GPU runs in this process, where a fault in its native code would end the worker. Only
JPEGs whose every header and table up to the first scan is valid are given to it; the others go to a
process that may die of them. Source: ITU-T T.81, annexes B and C.
"""

from __future__ import annotations

import struct

_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_HARMLESS = frozenset({*range(0xE0, 0xF0), 0xFE})
"""Application segments and comments, which a decoder of pixels passes over."""
_MOST_SEGMENTS = 1000


def is_well_formed(content: bytes) -> bool:
    """Whether each segment up to the first scan header is valid, in order and complete."""
    try:
        return _segments_are_valid(content)
    except (struct.error, IndexError):
        return False


def _segments_are_valid(content: bytes) -> bool:
    position = 2
    components: dict[int, int] = {}
    tables: set[int] = set()
    progressive = False
    for _ in range(_MOST_SEGMENTS):
        if content[position] != 0xFF:
            return False
        marker = content[position + 1]
        (length,) = struct.unpack_from(">H", content, position + 2)
        body = content[position + 4 : position + 2 + length]
        if len(body) != length - 2:
            return False
        position += 2 + length
        if marker in _HARMLESS:
            continue
        if marker == 0xDB:
            found = _quantization_tables(body)
            if not found:
                return False
            tables |= found
        elif marker == 0xC4:
            if not _huffman_tables_are_valid(body):
                return False
        elif marker == 0xDD:
            if len(body) != 2:
                return False
        elif marker in (_BASELINE, _EXTENDED, _PROGRESSIVE):
            if components:
                return False
            components = _components(body)
            if not components:
                return False
            progressive = marker == _PROGRESSIVE
        elif marker == 0xDA:
            return set(components.values()) <= tables and _scan_is_valid(
                body, components, progressive
            )
        else:
            return False
    return False


def _quantization_tables(body: bytes) -> set[int]:
    """The numbers of the tables in a DQT segment; empty if it is not valid."""
    found, position = set(), 0
    while position < len(body):
        precision, number = divmod(body[position], 16)
        size = 64 * (precision + 1)
        values = body[position + 1 : position + 1 + size]
        if precision > 1 or number > 3 or len(values) != size:
            return set()
        steps = values if precision == 0 else struct.unpack(">64H", values)
        if 0 in steps:
            return set()
        found.add(number)
        position += 1 + size
    return found


def _huffman_tables_are_valid(body: bytes) -> bool:
    position = 0
    while position < len(body):
        kind, number = divmod(body[position], 16)
        counts = body[position + 1 : position + 17]
        symbols = sum(counts)
        if kind > 1 or number > 3 or len(counts) != 16 or not 0 < symbols <= 256:
            return False
        # Codes of one length must leave room for the longer ones (annex C).
        room = 1
        for count in counts:
            room = room * 2 - count
            if room < 0:
                return False
        position += 17 + symbols
    return position == len(body) and bool(body)


def _components(body: bytes) -> dict[int, int]:
    """Component to quantisation table in a frame header; empty if it is not valid."""
    precision, height, width, count = struct.unpack_from(">BHHB", body)
    if precision != 8 or not height or not width or count not in (1, 3):
        return {}
    if len(body) != 6 + 3 * count:
        return {}
    found = {}
    for name, sampling, table in struct.iter_unpack("BBB", body[6:]):
        across, down = divmod(sampling, 16)
        # Factors of 3 are allowed, but no encoder writes them.
        if across not in (1, 2, 4) or down not in (1, 2, 4) or table > 3 or name in found:
            return {}
        found[name] = table
    return found


def _scan_is_valid(body: bytes, components: dict[int, int], progressive: bool) -> bool:
    count = body[0]
    if not 1 <= count <= len(components) or len(body) != 4 + 2 * count:
        return False
    names = list(body[1 : 1 + 2 * count : 2])
    if len(set(names)) != count or not set(names) <= set(components):
        return False
    start, end, approximation = body[1 + 2 * count :]
    if progressive:
        return start == end == 0 and approximation >> 4 == 0 and approximation & 15 <= 13
    return (start, end, approximation) == (0, 63, 0)
