"""Did a change make the product slower? Ratios of this run against those that are committed.

Only ratios are compared, never seconds or images a second: those are the machine's, and a machine
differs from the next, and from itself an hour later. Both sides of a ratio are measured in the same
run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.figures import Figure
from bench.results import Results

TOLERANCE = 0.15
"""How much worse than the worst repeat of the committed measurement a median may be. On two shared
cores medians of five repeats differ by up to a tenth from run to run."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """About one ratio."""

    regressed: bool
    sentence: str


def compare(
    figures: Sequence[Figure], committed: Results, tolerance: float = TOLERANCE
) -> list[Verdict]:
    """A verdict for every ratio that was measured now and then."""
    verdicts = []
    known = committed.figures
    for figure in figures:
        before = known.get(figure.name)
        if figure.unit or before is None or before["unit"]:
            continue
        low, high = before["spread"]
        if figure.better == "higher":
            bound = low * (1 - tolerance)
            regressed = figure.value < bound
        else:
            bound = high * (1 + tolerance)
            regressed = figure.value > bound
        word = "least" if figure.better == "higher" else "most"
        verdicts.append(
            Verdict(
                regressed,
                f"{figure.name}: {figure.value:.3g}, was {before['value']:.3g} at "
                f"{before['commit']} ({low:.3g} to {high:.3g}); at {word} {bound:.3g} passes"
                + (": REGRESSED" if regressed else ""),
            )
        )
    return verdicts
