"""What a part of the bench gives back: figures with their targets, and a page about them.

Every part is a module of `bench/parts` with a function `run(options: Options) -> Report`; the
runner (`python -m bench`) writes all reports to `bench/results.json` and `bench/RESULTS.md`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Options:
    """How a part is to be run.

    Attributes:
        repeats: interleaved repeats of each thing that is compared.
        device: torch device that the operators run on, such as `cpu` or `cuda:0`.
        plots: folder for the part's plots (PNG).
        quick: a smoke run for the tests: everything is done, on as little as possible, and its
            figures mean nothing.
        report: is told in words what is being done; the runner prints it.
    """

    repeats: int
    device: str
    plots: Path
    quick: bool = False
    report: Callable[[str], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure: the median of the repeats.

    Attributes:
        name: as it stands in `results.json`, such as `end_to_end_over_ceiling`.
        value: the median.
        spread: (lowest, highest) of the repeats.
        target: what was promised; `None` where nothing was.
        better: whether more or less is better.
        unit: empty for a ratio.
        repeats: how many measurements the median is of.
        note: why a target is not met, or what a reader has to know.
    """

    name: str
    value: float
    spread: tuple[float, float]
    target: float | None = None
    better: Literal["higher", "lower"] = "higher"
    unit: str = ""
    repeats: int = 1
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; `None` if there is none."""
        if self.target is None:
            return None
        if self.better == "higher":
            return self.value >= self.target
        return self.value <= self.target


def figure(
    name: str,
    values: Sequence[float],
    *,
    target: float | None = None,
    better: Literal["higher", "lower"] = "higher",
    unit: str = "",
    note: str = "",
) -> Figure:
    """The median of `values`, the results of repeats; at least one."""
    return Figure(
        name,
        statistics.median(values),
        (min(values), max(values)),
        target,
        better,
        unit,
        len(values),
        note,
    )


@dataclass(slots=True)
class Report:
    """What a part found.

    Attributes:
        title: heading of its section in RESULTS.md.
        command: what reproduces it, such as `make bench ONLY=overhead`.
        text: the section's body in Markdown: what was done, tables, what it means. Figures of
            `figures` are listed by the runner and need no table of their own.
        figures: for `results.json`.
        plots: names of files in `Options.plots`, with their captions.
    """

    title: str
    command: str
    text: str
    figures: list[Figure] = field(default_factory=list)
    plots: dict[str, str] = field(default_factory=dict)
