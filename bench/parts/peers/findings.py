"""What the part found, before it becomes a page."""

from __future__ import annotations

from dataclasses import dataclass

from bench.parts.peers.rounds import AfterKills, Rates


@dataclass(frozen=True, slots=True)
class SetFound:
    """Speeds with one set of operators: images a second by contender and repeat, in rounds of
    `count` photos."""

    count: int
    local: Rates
    http: Rates


@dataclass(frozen=True, slots=True)
class Found:
    """Everything.

    Attributes:
        light: without reading text, all contenders.
        default: every operator, ours and the quickest peers; `None` in a smoke run.
        rate: images a second at which latency was compared.
        latency: seconds to the verdict, by contender, repeat and image.
        losses: by contender.
    """

    light: SetFound
    default: SetFound | None
    rate: float
    latency: dict[str, list[list[float]]]
    losses: dict[str, AfterKills]
