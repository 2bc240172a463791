"""Where a process spends its time, by py-spy's samples from outside.

A figure that misses its target is to come with a profile. What it has to show at a glance is which
library the time goes to, and which of our own functions asked for it.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

OWN_PACKAGES = ("imagewire", "streams", "operators", "models", "sinks")

_ROOT = Path(__file__).parents[1]
_FRAME = re.compile(r"^(?P<function>.*) \((?P<file>.*?)(:\d+)?\)$")
_PACKAGE = re.compile(r"site-packages/(?P<package>[^/]+?)(\.py)?(/|$)")


class ProfileError(Exception):
    """py-spy could not look into the process; the message has what it said."""


async def sample(pid: int, seconds: float) -> Counter[str]:
    """Samples by stack, each `function (file:line);…`, the outermost frame first.

    Only threads that hold the interpreter's lock are sampled: others wait, or compute in C beside
    it. Needs the right to trace the process (its owner's or root's).

    Raises:
        ProfileError
    """
    program = Path(sys.executable).with_name("py-spy")
    with tempfile.TemporaryDirectory(prefix="imagewire-profile-") as folder:
        output = Path(folder) / "stacks.txt"
        process = await asyncio.create_subprocess_exec(
            *(str(program), "record", "--pid", str(pid), "--duration", str(round(seconds))),
            *("--rate", "200", "--format", "raw", "--full-filenames", "--nonblocking"),
            *("--gil", "--output", str(output)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        if process.returncode != 0 or not output.exists():
            raise ProfileError(f"py-spy ended with {process.returncode}: {said.decode()[-500:]}")
        stacks: Counter[str] = Counter()
        for line in output.read_text().splitlines():
            stack, _, count = line.rpartition(" ")
            stacks[stack] += int(count)
    return stacks


def by_package(stacks: Counter[str]) -> dict[str, float]:
    """The share of samples whose innermost frame is in a package; the largest first. Code in C
    counts for the Python function that called it."""
    found: Counter[str] = Counter()
    for stack, count in stacks.items():
        found[package_of(stack.split(";")[-1])] += count
    total = found.total() or 1
    return {package: count / total for package, count in found.most_common()}


def by_own_function(stacks: Counter[str], most: int) -> dict[str, float]:
    """The share of samples by the innermost function of Imagewire's own, with all that it called,
    the `most` largest; what none of them called counts for the outermost library."""
    found: Counter[str] = Counter()
    for stack, count in stacks.items():
        frames = stack.split(";")
        own = [frame for frame in frames if package_of(frame) in OWN_PACKAGES]
        if own:
            match = _FRAME.match(own[-1])
            function = match["function"] if match else own[-1]
            found[f"{_module_of(own[-1])}: {function}"] += count
        else:
            packages = [package_of(frame) for frame in frames]
            libraries = [name for name in packages if name not in ("Python", "asyncio", "bench")]
            found[f"{libraries[0] if libraries else packages[-1]} by itself"] += count
    total = found.total() or 1
    return {function: count / total for function, count in found.most_common(most)}


def _module_of(frame: str) -> str:
    match = _FRAME.match(frame)
    path = Path(match["file"] if match else frame)
    return ".".join(path.relative_to(_ROOT).with_suffix("").parts)


def package_of(frame: str) -> str:
    """The package that a frame's file belongs to: one of Imagewire's, a library, or `Python`."""
    match = _FRAME.match(frame)
    file = match["file"] if match else frame
    if library := _PACKAGE.search(file):
        return library["package"]
    if file.startswith(f"{_ROOT}{os.sep}"):
        return Path(file).relative_to(_ROOT).parts[0]
    parts = Path(file).parts
    if "asyncio" in parts:
        return "asyncio"
    return "Python"
