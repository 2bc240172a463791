"""What the part found, before it becomes a page."""

from __future__ import annotations

from dataclasses import dataclass

from bench.parts.peers.rounds import Account, Speeds


@dataclass(frozen=True, slots=True)
class SetFound:
    """Speeds with one set of operators, in rounds of `count` photos."""

    count: int
    local: Speeds
    http: Speeds


@dataclass(frozen=True, slots=True)
class Found:
    """Everything.

    Attributes:
        light: without reading text, all contenders.
        default: every operator, ours and the quickest peers; `None` in a smoke run.
        rate: images a second at which latency was compared.
        latency: seconds to the verdict, by contender, repeat and image.
        kills: how often each was killed.
        killed: the account after that, by contender.
        store_away: the account after ClickHouse was away for a moment, by contender.
    """

    light: SetFound
    default: SetFound | None
    rate: float
    latency: dict[str, list[list[float]]]
    kills: int
    killed: dict[str, Account]
    store_away: dict[str, Account]
