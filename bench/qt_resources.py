"""Files inside Qt's binary resource files (.rcc), in which Qt programs ship their pictures.

Such a file is a tree of nodes of fixed size, a table of names in UTF-16, and the contents, each
behind its length. Qt's own tool reads them too, but it is no Python and seldom installed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_COMPRESSED = 1
_FOLDER = 2
_ZSTANDARD = 4


def members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Path and content of each file in a resource file; those packed by Zstandard are left out.

    Raises:
        ValueError: `data` is no resource file.
    """
    if data[:4] != b"qres":
        raise ValueError("this is no resource file of Qt: it does not begin with 'qres'")
    version, tree, contents, names = struct.unpack_from(">4I", data, 4)
    node_size = 14 if version < 2 else 22
    waiting = [(0, "")]
    while waiting:
        number, folder = waiting.pop()
        node = tree + number * node_size
        name_at, flags = struct.unpack_from(">IH", data, node)
        path = folder
        if number:
            (length,) = struct.unpack_from(">H", data, names + name_at)
            # Between length and letters stands a hash of four bytes.
            letters = data[names + name_at + 6 : names + name_at + 6 + 2 * length]
            path = f"{folder}/{letters.decode('utf-16-be')}".lstrip("/")
        if flags & _FOLDER:
            children, first = struct.unpack_from(">II", data, node + 6)
            waiting += [(child, path) for child in range(first, first + children)]
            continue
        (content_at,) = struct.unpack_from(">I", data, node + 10)
        (size,) = struct.unpack_from(">I", data, contents + content_at)
        content = data[contents + content_at + 4 : contents + content_at + 4 + size]
        if flags & _ZSTANDARD:
            continue
        # Qt writes the unpacked length before what zlib packed.
        yield path, zlib.decompress(content[4:]) if flags & _COMPRESSED else content
