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
    """One line of text that was read. `normal`: the same in the spelling that term lists and
    policies compare (case, width, look-alikes and number-for-letter tricks undone); empty where
    text is not normalised."""

    text: str
    score: Score
    quad: Quad
    normal: str = ""


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


class HashMatch(msgspec.Struct, frozen=True):
    """The picture is, or looks like, one on a banlist.

    `list`: the banlist's name. `distance`: differing bits of the two PDQ hashes, 0 to 256; always 0
    for `sha256`. `reason` and `action`: what the list says of its entries. `entry`: the hash on the
    list. `turned`: how the picture was turned or mirrored against the banned one; empty if not.
    """

    list: str
    kind: Literal["sha256", "pdq"]
    distance: int = 0
    reason: str = ""
    action: Action = "block"
    entry: str = ""
    turned: str = ""


class SimilarMatch(msgspec.Struct, frozen=True):
    """The picture's embedding is near that of an exemplar. `distance`: 1 minus the cosine, 0 to 2.
    `exemplar`: the content id of its picture. `list`: its banlist. `reason` and `action`: what the
    list says of its entries."""

    exemplar: str
    list: str
    distance: float
    reason: str = ""
    action: Action = "block"


class TermMatch(msgspec.Struct, frozen=True):
    """A term of a term list was read in the picture.

    `term`: the term as it stands in the list. `language`: the list's, empty for any. `line`: which
    of the picture's text lines it begins in, from 0. `start` and `end`: its place in that line as
    the line is stored, in characters; the whole line for a regular expression. `category` and
    `severity`: what the list says of the term.
    """

    list: str
    term: str
    language: str = ""
    line: int = 0
    start: int = 0
    end: int = 0
    category: str = ""
    severity: str = ""


class Redaction(msgspec.Struct, frozen=True):
    """Personal data was taken out of a text line. `kind`: what it was, such as `email`. `start` and
    `end`: where its stand-in (`[email]`) is in the line as it is stored, in characters; where it is
    itself in lines that are kept raw."""

    kind: str
    line: int
    start: int
    end: int


class Face(msgspec.Struct, frozen=True):
    """A face in the picture."""

    score: Score
    box: Box


class RuleHit(msgspec.Struct, frozen=True):
    """A policy rule that fired.

    `priority`: the higher is heard first; see `Verdict`. `severity`: low, medium, high or critical,
    empty if the rule gives none. `category`: `group/sub`, empty if none. A `shadow` rule was
    evaluated and is recorded, and had no part in the verdict's action.
    """

    rule: str
    action: Action
    explanation: str = ""
    priority: int = 0
    severity: str = ""
    category: str = ""
    shadow: bool = False


class Verdict(msgspec.Struct, frozen=True):
    """The decision over one image: among the rules that fired and are no shadow rules, the
    strictest action of those with the highest priority; `allow` if there is none.

    `policy` is the policy's version, so that every verdict can be traced to the rules in force.
    Where a person decided, `action` is that decision, `machine_action` what the policy says, and
    `decision_id` and `decided_at` (RFC 3339) say which decision it was. `audit`: the rules that
    this image is drawn for, so that people check them; `(no rule)` if none fired.
    """

    action: Action
    policy: str
    rules: list[RuleHit] = []
    decided_by: Literal["policy", "person"] = "policy"
    machine_action: Action | None = None
    decision_id: str | None = None
    decided_at: str | None = None
    audit: list[str] = []


class Findings(msgspec.Struct):
    """What the operators found. A field stays `None` or empty when its operator is switched off.

    `extra` holds what third-party operators add, under the operator's name; its values must be
    JSON-serialisable. `models` maps each operator to the `name@version` of the model it used.
    `hashes` and `similar` depend on lists that change while the service runs.
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
    hashes: list[HashMatch] = []
    similar: list[SimilarMatch] = []
    terms: list[TermMatch] = []
    redactions: list[Redaction] = []
    faces: list[Face] = []
