"""`python -m bench.chaos.soak`: does a worker's memory stay flat under a steady load?

Nothing is broken here. A worker is fed at a constant rate; its resident set is sampled from outside
and the frames it finished are read from its own metrics. After a warm-up, in which the cache of
known findings reaches its bound, a line is fitted through the samples: its slope, with its
uncertainty, is the answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from bench.chaos import memory
from bench.chaos.stage import Stage

FOLDER = Path(__file__).parents[1]
_EVERY_SECONDS = 2.0
_WARM_UP_SHARE = 0.25

# Findings of identical content are kept up to a bound, and until it is reached memory grows as it
# should: the 10 000 of the default take 14 minutes at 12 images/s. A bound that is reached within
# the warm-up leaves only growth that has no end.
_KEPT = {"IMAGEWIRE_REUSE__MAX_BYTES": str(2 * memory.MEBIBYTE)}


@dataclass(frozen=True, slots=True)
class Sample:
    """`rss_mib` is the worker's resident set with its children's, `frames` all it ever finished."""

    second: float
    rss_mib: float
    frames: float


@dataclass(frozen=True, slots=True)
class Soak:
    """What a soak showed. The slope is a least-squares fit after the warm-up, its margin twice the
    standard error (which samples that follow each other closely make look smaller than it is)."""

    seconds: float
    rate: float
    cores: int
    published: int
    stored: int
    lost: int
    doubled: int
    rss_mib_after_warm_up: float
    rss_mib_at_end: float
    rss_mib_peak: float
    slope_mib_per_hour: float
    slope_margin_mib_per_hour: float
    samples: list[Sample]


async def soak(directory: Path, seconds: float, rate: float, console: Console) -> Soak:
    """Feed one worker for `seconds` at `rate` images a second."""
    samples: list[Sample] = []

    def report(what: str) -> None:
        console.print(what, highlight=False)

    async with Stage(directory, rate=rate, settings=_KEPT, report=report) as stage:
        began = time.monotonic()
        async with stage.load(stage.new_feed("soak")) as load:
            while (second := time.monotonic() - began) < seconds:
                rss = sum(memory.resident_mib(pid) for pid in stage.worker_pids())
                frames = await stage.finished_frames()
                samples.append(Sample(round(second, 2), round(rss, 1), frames))
                if len(samples) % 30 == 0:
                    report(f"{second:5.0f} s: {rss:.0f} MiB, {frames:.0f} frames")
                await asyncio.sleep(_EVERY_SECONDS)
        account = await stage.settle(load)
    steady = [sample for sample in samples if sample.second > _WARM_UP_SHARE * seconds]
    slope, margin = _slope(steady)
    return Soak(
        seconds=round(samples[-1].second, 1),
        rate=rate,
        cores=os.cpu_count() or 0,
        published=account.published,
        stored=account.stored,
        lost=len(account.lost),
        doubled=len(account.doubled),
        rss_mib_after_warm_up=steady[0].rss_mib,
        rss_mib_at_end=samples[-1].rss_mib,
        rss_mib_peak=max(sample.rss_mib for sample in samples),
        slope_mib_per_hour=round(slope * 3600, 1),
        slope_margin_mib_per_hour=round(2 * margin * 3600, 1),
        samples=samples,
    )


def _slope(samples: Sequence[Sample]) -> tuple[float, float]:
    """Of the resident set, in MiB a second, and its standard error."""
    seconds = np.array([sample.second for sample in samples])
    mib = np.array([sample.rss_mib for sample in samples])
    centred = seconds - seconds.mean()
    spread = float((centred**2).sum())
    slope = float((centred * (mib - mib.mean())).sum()) / spread
    residuals = mib - mib.mean() - slope * centred
    return slope, math.sqrt(float((residuals**2).sum()) / max(len(samples) - 2, 1) / spread)


def plot(result: Soak, path: Path) -> None:
    """Memory and throughput over time."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    seconds = np.array([sample.second for sample in result.samples])
    mib = np.array([sample.rss_mib for sample in result.samples])
    frames = np.array([sample.frames for sample in result.samples])
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(9, 5.5), layout="constrained")
    above.plot(seconds / 60, mib, color="#1f5f8b")
    warm = seconds > _WARM_UP_SHARE * result.seconds
    centre = seconds[warm].mean()
    fitted = mib[warm].mean() + result.slope_mib_per_hour / 3600 * (seconds[warm] - centre)
    above.plot(seconds[warm] / 60, fitted, "--", color="#c0392b")
    above.set_ylabel("worker RSS, MiB")
    above.set_ylim(bottom=0)
    above.set_title(
        f"{result.slope_mib_per_hour:+.0f} ± {result.slope_margin_mib_per_hour:.0f} MiB an hour "
        f"after warm-up, at {result.rate:g} images/s"
    )
    # Over ten samples, as frames are counted in batches.
    width = min(10, max(len(frames) // 4, 1))
    speed = (frames[width:] - frames[:-width]) / (seconds[width:] - seconds[:-width])
    below.plot(seconds[width:] / 60, speed, color="#2e7d32")
    below.set_ylabel("frames/s")
    below.set_xlabel("minutes")
    below.set_ylim(bottom=0)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=900.0)
    parser.add_argument("--rate", type=float, default=12.0, help="images a second")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for soak.json, soak.png")
    arguments = parser.parse_args()
    if arguments.seconds < 60:
        parser.error("a soak shorter than a minute says nothing about memory")
    console = Console()
    directory = Path(tempfile.mkdtemp(prefix="imagewire-soak-"))
    try:
        result = asyncio.run(soak(directory, arguments.seconds, arguments.rate, console))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    (arguments.out / "soak.json").write_text(json.dumps(asdict(result)) + "\n")
    plot(result, arguments.out / "soak.png")
    console.print({k: v for k, v in asdict(result).items() if k != "samples"})
    return 1 if result.lost or result.doubled else 0


if __name__ == "__main__":
    sys.exit(main())
