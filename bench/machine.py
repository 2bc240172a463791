"""What a figure was measured on: a figure without its machine, versions and commit is hearsay."""

from __future__ import annotations

import datetime as dt
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypedDict

import psutil

_PACKAGES = (
    "imagewire",
    "torch",
    "torchvision",
    "faust-streaming",
    "aiokafka",
    "numpy",
    "onnxruntime",
    "opencv-python-headless",
    "ultralytics-opencv-headless",
    "chdb-core",
    "clickhouse-connect",
    "qdrant-client",
    "qdrant-edge-py",
    "uvloop",
    "msgspec",
    "nvidia-dali-cuda130",
)
_ROOT = Path(__file__).parents[1]


class Machine(TypedDict):
    """As it stands in results.json; `ram_gib` is all there is, not what was free."""

    cpu: str
    cores: int
    ram_gib: float
    kernel: str
    python: str
    gpu: str | None
    versions: dict[str, str]


class Measured(TypedDict):
    """When and where a figure was measured. The commit ends in `+` where files of the product or
    of the bench differed from it."""

    commit: str
    date: str
    device: str


def this_machine(device: str) -> Machine:
    """The machine that this process runs on; `device` is a torch device."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "ram_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "gpu": _gpu_name(device),
        "versions": versions,
    }


def measured_now(device: str) -> Measured:
    """The commit checked out now, the time and the device."""
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    return {"commit": _commit(), "date": now.isoformat(), "device": device}


def _commit() -> str:
    def git(*arguments: str) -> str:
        answer = subprocess.run(
            ["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=True
        )
        return answer.stdout.strip()

    try:
        packages = ("imagewire", "streams", "operators", "models", "sinks", "bench/**/*.py")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *packages)
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {name.strip(): value.strip() for name, value in fields.items()}
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    flags = [flag for flag in wanted if flag in named.get("flags", "").split()]
    return f"{named.get('model name', platform.machine())} ({', '.join(flags) or 'no AVX2'})"


def _gpu_name(device: str) -> str | None:
    if not device.startswith("cuda"):
        return None
    # Loading torch takes seconds, which runs on the processor need not wait for.
    import torch

    return torch.cuda.get_device_name(device) if torch.cuda.is_available() else None
