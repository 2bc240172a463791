"""Findings: everything Imagewire sees in one image, in the types that every layer speaks.

They are msgspec structs, so that Kafka records, dead letters and JSON Schemas come from the same
definitions. Coordinates are always pixels of the original image, upright (EXIF orientation
applied), x to the right and y down, with (0, 0) the top left corner.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

Action = Literal["allow", "review", "block"]
"""What a verdict asks for. The order of `ACTIONS` is the order of strictness."""

ACTIONS: tuple[Action, ...] = ("allow", "review", "block")

Score = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels."""
Quad = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]
"""The four corners of a text line in pixels, clockwise from the start of the text."""


class Detection(msgspec.Struct, frozen=True):
    """One object in the picture."""

    label: str
    score: Score
    box: Box


class TextLine(msgspec.Struct, frozen=True):
    """One line of text that was read."""

    text: str
    score: Score
    quad: Quad


class Embedding(msgspec.Struct, frozen=True):
    """A picture as a point: `vector` has unit L2 norm; `model` is `name@version`."""

    model: str
    vector: list[float]


class Fingerprint(msgspec.Struct, frozen=True):
    """`content_id`: SHA-256 of the bytes (64 hex digits). `pdq`: PDQ hash of the picture
    (64 hex digits, empty when there is none) and its quality, 0 to 100."""

    content_id: str
    pdq: str = ""
    pdq_quality: int = 0


class ImageInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """The upright picture's size in pixels, the container format (`jpeg`, `png`, …) as recognised
    from the content, and the size of the encoded bytes. `truncated`: the end of the file was
    missing, and what it would have shown is grey (`decode.truncated = "tolerate"`)."""

    width: int
    height: int
    format: str
    bytes: int
    truncated: bool = False


class RuleHit(msgspec.Struct, frozen=True):
    """A policy rule that fired."""

    rule: str
    action: Action
    explanation: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """The decision over one image: the strictest action of the rules that fired, `allow` if none.

    `policy` is the policy's version, so that every verdict can be traced to the rules in force.
    """

    action: Action
    policy: str
    rules: list[RuleHit] = []


class Findings(msgspec.Struct):
    """What the operators found. A field stays `None` or empty when its operator is switched off.

    `extra` holds what third-party operators add, under the operator's name; its values must be
    JSON-serialisable. `models` maps each operator to the `name@version` of the model it used.
    """

    image: ImageInfo | None = None
    fingerprint: Fingerprint | None = None
    objects: list[Detection] = []
    texts: list[TextLine] = []
    embedding: Embedding | None = None
    scores: dict[str, float] = {}
    extra: dict[str, Any] = {}
    models: dict[str, str] = {}
    verdict: Verdict | None = None
