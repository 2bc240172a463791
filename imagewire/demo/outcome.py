"""What became of a demonstration, in the terms that both its reports speak.

The terminal tables and the contact sheet are written from the same values, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operators.findings import ACTIONS, Action, Findings

QUALIFIERS = frozenset({"FEMALE", "MALE", "EXPOSED", "COVERED"})
"""Words of NudeNet's labels that say something about the part, wherever they stand."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The most similar other image: the name of its tile and the cosine similarity, -1 to 1."""

    name: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Tile:
    """One image that got findings.

    Attributes:
        name: unique among the tiles; the target of links to it.
        path: the file that was published, from which the preview is made.
        findings: as they came back from Kafka.
        kind: heading under which it stands, such as `photo`.
        note: a few words about the picture, such as `bus.jpg, mirrored`.
        neighbour: the nearest other image, if one was looked for.
        latency_ms: from the Kafka timestamp of the image to that of its verdict.
    """

    name: str
    path: Path
    findings: Findings
    kind: str = "photo"
    note: str = ""
    neighbour: Neighbour | None = None
    latency_ms: float | None = None

    @property
    def action(self) -> Action | None:
        """What the verdict asks for; `None` when there is no verdict."""
        return self.findings.verdict.action if self.findings.verdict else None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One image that failed: its name, the stage, the reason code, and the sentence for people."""

    name: str
    stage: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class SqlAnswer:
    """A question in plain words, the SQL that asks it, and what the store answered."""

    question: str
    sql: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Summary:
    """The demonstration in numbers.

    `lost` images have neither findings nor a dead letter; `doubled` have more than one row. The
    latencies are milliseconds from an image's Kafka timestamp to its verdict's. `models` maps roles
    to `name@version`.
    """

    published: int
    findings: int
    dead_letters: int
    lost: int
    doubled: int
    images_per_second: float
    latency_p50_ms: float
    latency_p99_ms: float
    broker: str
    device: str = ""
    policy: str = ""
    models: dict[str, str] | None = None


def humanised(label: str) -> str:
    """A detector's label as people write it: `FACE_FEMALE` is `face (female)`.

    Labels that are not in capitals, such as COCO's, are already words and stay as they are.
    """
    if label != label.upper():
        return label.replace("_", " ")
    parts = label.split("_")
    qualifiers = [part.lower() for part in parts if part in QUALIFIERS]
    noun = " ".join(part.lower() for part in parts if part not in QUALIFIERS)
    if not noun or not qualifiers:
        return " ".join(part.lower() for part in parts)
    return f"{noun} ({', '.join(qualifiers)})"


def verdict_counts(tiles: Sequence[Tile]) -> dict[Action, int]:
    """How many images got each action, the mildest first."""
    return {action: sum(tile.action == action for tile in tiles) for action in ACTIONS}


def shown(value: Any) -> str:
    """A value of a SQL answer as both reports print it."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    if isinstance(value, bool) or not isinstance(value, int):
        if isinstance(value, (list, tuple)):
            return ", ".join(shown(item) for item in value)
        return str(value)
    return f"{value:,}"
