"""Several processes on one GPU at the same time: what does each more of them add?"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from operators.registry import BUILT_IN

FEEDER = "bench.parts.gpu.feeder"


class Crowd:
    """`count` processes of `bench.parts.gpu.feeder`. Use as a context manager."""

    def __init__(self, count: int, device: str, batch: int, only: Sequence[str] = BUILT_IN) -> None:
        threads = max(1, len(os.sched_getaffinity(0)) // count)
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", FEEDER, device, str(batch), str(threads), *only],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]

    def __enter__(self) -> Crowd:
        for process in self._processes:
            if self._line(process) != "ready":
                self.close()
                raise RuntimeError(f"a process of {FEEDER} did not start; its error is above")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rate(self, seconds: float) -> float:
        """Images a second of all processes together."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
        return sum(float(self._line(process)) for process in self._processes)

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _line(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()
