"""Who has a directory of the embedded engine open.

chDB lets one process open a directory and tells a second one only that it could not start; the lock
itself names the process.
"""

from __future__ import annotations

import fcntl
import re
from pathlib import Path


def holding_process(path: Path) -> str | None:
    """The process that has the chDB directory `path` open, or `None`.

    The engine holds an exclusive flock on `status` inside it, whose text names the process.
    """
    status = path / "status"
    try:
        with status.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found = re.search(rb"PID:\s*(\d+)", file.read(4096))
                return found[1].decode() if found else "unknown"
            fcntl.flock(file, fcntl.LOCK_UN)
    except FileNotFoundError:
        return None
    return None
