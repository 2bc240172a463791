"""How many processors this process may use, which is not how many the machine has.

A container's CPU limit is a quota of time, which neither torch nor `os.cpu_count` knows: on a host
of 64 cores with a limit of 4, 64 threads would take turns and wait for each other at every barrier.
"""

from __future__ import annotations

import math
import os
from pathlib import Path


def available_processors(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Processors that this process is bound to, or fewer where a quota allows less; at least 1.

    Args:
        cgroups: where control groups are mounted; version 2 (`cpu.max`) and 1 (`cpu/cpu.cfs_*`)
            are read.
    """
    bound = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = _quota(cgroups)
    return bound if quota is None else max(1, min(bound, math.ceil(quota)))


def _quota(cgroups: Path) -> float | None:
    """Processors' worth of time that the control group may use; `None` without a limit."""
    try:
        quota, period = (cgroups / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            quota = (cgroups / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (cgroups / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        except OSError:
            return None
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max": no limit
        return None
    return share if share > 0 else None
