"""How much processor time processes have used, children included, read from outside."""

from __future__ import annotations

import contextlib

import psutil


def cpu_seconds(pid: int) -> float:
    """User and system seconds of a process, of all below it, and of its children that have ended.

    The kernel counts in hundredths of a second. 0 when the process is gone.
    """
    total = 0.0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        total = _own(process)
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                total += _own(child)
    return total


def _own(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)
