"""The table of core time counts nothing twice."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import psutil

from bench.core_time import core_time


def test_a_grandchild_counts_for_the_nearest_that_has_a_name() -> None:
    nested = "sh -c 'yes > /dev/null & wait' & wait"
    top = subprocess.Popen(["sh", "-c", nested], start_new_session=True)
    try:
        family: list[psutil.Process] = []
        deadline = time.monotonic() + 30
        while len(family) < 2 and time.monotonic() < deadline:
            family = psutil.Process(top.pid).children(recursive=True)
            time.sleep(0.05)
        with core_time({"top": top.pid, "middle": family[0].pid}) as found:
            until = time.monotonic() + 30
            while family[1].cpu_times().user < 0.1 and time.monotonic() < until:
                time.sleep(0.05)
            time.sleep(0.5)
    finally:
        os.killpg(top.pid, signal.SIGKILL)
        top.wait()
    assert found.seconds["middle: children"] > 0
    assert "top: children" not in found.seconds
