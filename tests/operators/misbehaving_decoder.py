"""A decoder that does what a faulty native library would, when an image's last bytes ask for it.

It is given to the child processes in place of the real one, which it calls for all other images.
"""

from __future__ import annotations

import ctypes
import os
import re
import time

import numpy as np

from operators import decode_pixels as real
from operators.decode_limits import DecodeLimits
from operators.image_facts import ImageHeader

prepare = real.prepare


def decode(
    content: bytes,
    header: ImageHeader,
    limits: DecodeLimits,
    reduction: int,
    room: real.Pixels,
) -> real.Decoded:
    match content[-8:]:
        case b"segfault":
            ctypes.string_at(0)
        case b"abort!!!":
            os.abort()
        case b"hangs!!!":
            # Within one C function that never lets go of the interpreter.
            re.match(r"(a+)+$", "a" * 64 + "b")
        case b"floods!!":
            held = [np.ones(10_000_000, np.uint8) for _ in range(10_000)]
            raise AssertionError(len(held))
        case b"raises!!":
            raise RuntimeError("an error that nobody foresaw")
        case b"lies!!!!":
            for descriptor in range(3, 64):
                try:
                    os.write(descriptor, b'{"height": 100000, "width": 100000}')
                except OSError:
                    continue
            time.sleep(60)
        case b"slowly!!":
            time.sleep(1.5)
    return real.decode_pixels(content, header, limits, reduction, room)
