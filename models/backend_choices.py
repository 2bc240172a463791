"""Which runtime each model is to have on this machine, as `imagewire models tune` found it.

The choices stand in `backends.json` in the cache folder, under the SHA-256 of the weights. They
hold for the machine, its processors and the versions of the runtimes that they were measured with;
where any of these differs they count for nothing, and torch is used.
"""

from __future__ import annotations

import logging
import os
import platform
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from models.processors import available_processors
from models.runtimes import BACKENDS, Backend
from models.weights import cache_folder

log = logging.getLogger(__name__)


class Choice(msgspec.Struct, frozen=True):
    """What was chosen for one model, and the images a second that each runtime did, by batch."""

    model: str
    backend: Backend
    images_per_second: dict[str, dict[str, float]] = {}


class Choices(msgspec.Struct):
    """The file: for which machine, and the choice for each SHA-256 of weights."""

    machine: str
    choices: dict[str, Choice] = {}


def choices_file() -> Path:
    """Where the choices stand."""
    return cache_folder() / "backends.json"


def machine() -> str:
    """What choices depend on: processor, how many of them, and the runtimes' versions."""
    runtimes = " ".join(f"{name}={_version(name)}" for name in BACKENDS)
    return f"{_processor()}, {available_processors()} processors, {runtimes}"


def load_choices(file: Path | None = None) -> dict[str, Choice]:
    """The choices that hold here, by SHA-256; none if there is no file, or for another machine."""
    path = file or choices_file()
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Choices)
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("%s cannot be read (%s); run `imagewire models tune` again", path, error)
        return {}
    if found.machine != machine():
        log.info("%s is for another machine or other versions; models run in torch", path)
        return {}
    return found.choices


def save_choices(choices: dict[str, Choice], file: Path | None = None) -> Path:
    """Write choices for this machine beside those that hold; returns the file.

    Raises:
        OSError: the cache folder cannot be written.
    """
    path = file or choices_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    content = msgspec.json.encode(Choices(machine(), load_choices(path) | choices))
    # A worker that starts meanwhile reads the old file or the new one, never a half of it.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".backends-")
    with os.fdopen(handle, "wb") as stream:
        stream.write(msgspec.json.format(content, indent=2))
    Path(temporary).replace(path)
    return path


def chosen_backend(sha256: str) -> Backend:
    """The runtime for weights with this SHA-256: what was chosen, else torch."""
    choice = load_choices().get(sha256)
    return choice.backend if choice is not None else "torch"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n"):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
