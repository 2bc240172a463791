"""`results.json`: every figure under its name, with its target, spread and where it was measured.

A run of some parts replaces the figures of those parts and leaves the others as they were, each
with the commit, date and device of its own measurement.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.figures import Figure, Report
from bench.machine import Machine, Measured

GPU_SUFFIX = "_gpu"


def on_gpu(device: str) -> bool:
    """Whether `device` is an accelerator, whose figures have names of their own."""
    return device.startswith("cuda")


def section_of(part: str, device: str) -> str:
    """The name under which a part's figures and text are kept for a device."""
    return part + GPU_SUFFIX if on_gpu(device) and not part.endswith(GPU_SUFFIX) else part


def named_for(device: str, figures: list[Figure]) -> list[Figure]:
    """The same figures, with the suffix `_gpu` if they were measured on one."""
    if not on_gpu(device):
        return figures
    return [
        figure
        if figure.name.endswith(GPU_SUFFIX)
        else replace(figure, name=figure.name + GPU_SUFFIX)
        for figure in figures
    ]


class Results:
    """The file and what stands in it."""

    def __init__(self, path: Path) -> None:
        """Reads `path` if it is there.

        Raises:
            ValueError: the file is no results file.
        """
        self.path = path
        self._content: dict[str, Any] = {"figures": {}, "machine": {}, "parts": {}}
        if path.exists():
            try:
                self._content |= json.loads(path.read_text())
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{path} is no results file of the bench ({error}); restore or remove it"
                ) from error

    @property
    def figures(self) -> dict[str, dict[str, Any]]:
        """Figures by name."""
        return dict(self._content["figures"])

    @property
    def parts(self) -> dict[str, dict[str, Any]]:
        """What is known of each section: `title`, `command`, `seconds`, `measured`."""
        return dict(self._content["parts"])

    @property
    def machines(self) -> dict[str, Machine]:
        """By the name under which they stand in the file: `machine`, `machine_gpu`."""
        return {
            name: self._content[name]
            for name in ("machine", "machine" + GPU_SUFFIX)
            if self._content.get(name)
        }

    def merge(
        self, part: str, report: Report, machine: Machine, measured: Measured, seconds: float
    ) -> None:
        """Put the figures of `part` in the place of those that it had on this kind of device."""
        device = measured["device"]
        section = section_of(part, device)
        figures = self._content["figures"]
        for name in [name for name, figure in figures.items() if figure["part"] == section]:
            del figures[name]
        for figure in named_for(device, report.figures):
            if figure.name in figures:
                raise ValueError(
                    f"part {section} calls a figure {figure.name}, as part "
                    f"{figures[figure.name]['part']} does; rename one of them"
                )
            figures[figure.name] = as_json(figure) | {"part": section} | dict(measured)
        self._content["parts"][section] = {
            "title": report.title,
            "command": report.command,
            "seconds": round(seconds, 1),
        } | dict(measured)
        self._content["machine" + (GPU_SUFFIX if on_gpu(device) else "")] = machine

    def write(self) -> None:
        """Write the file, whole or not at all."""
        new = self.path.with_suffix(".json.new")
        new.write_text(json.dumps(self._content, indent=1, sort_keys=True) + "\n")
        new.replace(self.path)


def as_json(figure: Figure) -> dict[str, Any]:
    """A figure as it stands in the file, less where it was measured."""
    return {
        "value": _rounded(figure.value),
        "target": figure.target,
        "met": figure.met,
        "spread": [_rounded(bound) for bound in figure.spread],
        "better": figure.better,
        "unit": figure.unit,
        "repeats": figure.repeats,
        "note": figure.note,
    }


def _rounded(value: float) -> float:
    """Four significant digits: more would claim what repeats do not show."""
    return float(f"{value:.4g}")
