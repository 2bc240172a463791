"""Whether the disk under the data directory has room, in words for the person who must make some.

A full disk ends programs in ways that do not name it: Qdrant's engine, which maps its files, gets
SIGBUS; Kafka halts. So it is said before, while there is still some room, and again beside the
death of a child.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

MEBIBYTE = 1 << 20

FULL_BYTES = 64 * MEBIBYTE
"""Below this a child that dies has probably died of it: Qdrant's engine extends its write-ahead
log by segments of 32 MiB, and needs a next one ready."""

LOW_BYTES = 1024 * MEBIBYTE
"""Below this there is time to make room, but not much: Kafka's segments grow up to 1 GiB each."""

_LOOK_EVERY_SECONDS = 10.0


def free_bytes(directory: Path) -> int | None:
    """What is free on the directory's disk, or `None` if that cannot be told."""
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return None


def full_disk(directory: Path) -> str:
    """A sentence that says that the directory's disk is full; empty if it is not."""
    free = free_bytes(directory)
    if free is None or free >= FULL_BYTES:
        return ""
    return f"the disk of {directory} is full: {free // MEBIBYTE} MiB free; make room"


def disk_trouble(directory: Path) -> str:
    """A sentence that says that the directory's disk is full or read-only; empty if it is well."""
    if full := full_disk(directory):
        return full
    try:
        writable = os.access(directory, os.W_OK)
    except OSError:
        writable = False
    if writable or not directory.exists():
        return ""
    return (
        f"{directory} cannot be written any more; look whether its disk has failed or was mounted "
        "read-only"
    )


class DiskWatch:
    """Tells when room becomes scarce: once, and again only after there was room in between.

    Args:
        directory: whose disk it is.
        warn: is told in one sentence.
    """

    def __init__(self, directory: Path, warn: Callable[[str], None]) -> None:
        self._directory = directory
        self._warn = warn
        self._told_low = False
        self._told_full = False
        self._told_unwritable = False

    def look(self) -> None:
        """Look once, and warn if there is news."""
        free = free_bytes(self._directory)
        if free is None:
            return
        full = full_disk(self._directory)
        trouble = disk_trouble(self._directory)
        if trouble and not full and not self._told_unwritable:
            self._warn(trouble)
        self._told_unwritable = bool(trouble)
        if full and not self._told_full:
            self._warn(full)
        elif free < LOW_BYTES and not self._told_low:
            self._warn(
                f"the disk of {self._directory} has only {free // MEBIBYTE} MiB free; make room, "
                "or the broker and the stores will stop"
            )
        # A little more than the limit, so that what wavers around it is one episode.
        self._told_low = free < LOW_BYTES or (self._told_low and free < LOW_BYTES * 5 // 4)
        self._told_full = bool(full) or (self._told_full and free < FULL_BYTES * 2)

    async def run(self) -> None:
        """Look every ten seconds until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
