"""Where the cores' time goes while something runs: by process, and what is left idle.

All cores together are the budget: what one program takes, another cannot have. So a table of core
milliseconds an image says why a pipeline is slower than its models alone, without a guess.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

IDLE = "idle"
REST = "everything else on the machine"


@dataclass(slots=True)
class CoreTime:
    """Core seconds of one stretch of time, by name; `IDLE` and `REST` among them."""

    seconds: dict[str, float] = field(default_factory=dict)


@contextmanager
def core_time(processes: Mapping[str, int | None]) -> Iterator[CoreTime]:
    """Measure while the block runs.

    Args:
        processes: pids by name; children that live at the beginning and at the end, and have no
            name of their own, count as "NAME: children" of the nearest that has one. `None` is not
            running.
    """
    found = CoreTime()
    cores = len(os.sched_getaffinity(0))
    before, idle, began = _all(processes), psutil.cpu_times().idle, time.perf_counter()
    yield found
    wall = time.perf_counter() - began
    after = _all(processes)
    found.seconds = {name: after[name] - before.get(name, 0.0) for name in after}
    found.seconds[IDLE] = psutil.cpu_times().idle - idle
    found.seconds[REST] = cores * wall - sum(found.seconds.values())


def _all(processes: Mapping[str, int | None]) -> dict[str, float]:
    found: dict[str, float] = {}
    taken = {pid for pid in processes.values() if pid is not None}
    # The nearest first: who started a worker is not to count that worker's children again.
    for name, pid in sorted(processes.items(), key=lambda each: -_depth(each[1])):
        if pid is None:
            continue
        try:
            process = psutil.Process(pid)
            found[name] = _own(process)
            children = process.children(recursive=True)
        except psutil.Error:
            continue
        for child in children:
            if child.pid in taken:
                continue
            taken.add(child.pid)
            try:
                found[f"{name}: children"] = found.get(f"{name}: children", 0.0) + _own(child)
            except psutil.Error:
                continue
    return found


def _depth(pid: int | None) -> int:
    """How many processes stand above this one; 0 for one that is gone."""
    try:
        return len(psutil.Process(pid).parents()) if pid is not None else 0
    except psutil.Error:
        return 0


def _own(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def core_table(columns: Mapping[str, Sequence[CoreTime]], images: int) -> str:
    """A table of core milliseconds an image, medians over laps of `images` images each."""
    names = list(
        dict.fromkeys(name for laps in columns.values() for lap in laps for name in lap.seconds)
    )
    names.sort(key=lambda name: (name in (IDLE, REST), name == REST))
    lines = [
        "| core ms an image | " + " | ".join(columns) + " |",
        "|---|" + "--:|" * len(columns),
    ]
    for name in names:
        cells = [
            f"{1000 * statistics.median(lap.seconds.get(name, 0.0) for lap in laps) / images:.1f}"
            for laps in columns.values()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
