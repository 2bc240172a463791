"""What policies can read of a frame: every variable with its type, for checks and for evaluation.

The table here is the one source: conditions are checked against it, its values are what compiled
conditions read, and its conversions are what CEL is given where a condition goes through CEL.
docs/policy.md describes each variable for the people who write rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from operators.calibration import Calibration, calibrated_scores
from operators.findings import Box, Fingerprint, ImageInfo
from operators.frame import Frame


@dataclass(frozen=True, slots=True)
class Simple:
    """`name` is CEL's: bool, int, double, string, or dyn for what only a value itself tells.
    `unit`: a number between 0 and 1 by its meaning."""

    name: str
    unit: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    item: Type


@dataclass(frozen=True, slots=True)
class Mapped:
    """A map with string keys, which may lack any of them."""

    value: Type


@dataclass(frozen=True, slots=True)
class Record:
    """Named fields. `read`: how Python reads the field of a value, `{0}` being the value."""

    name: str
    fields: Mapping[str, Type]
    read: Mapping[str, str] = field(default_factory=dict)


Type = Simple | Listing | Mapped | Record

BOOL, INT, DOUBLE, STRING = Simple("bool"), Simple("int"), Simple("double"), Simple("string")
DYN = Simple("dyn")
UNIT = Simple("double", unit=True)

_CORNERS = ("x1", "y1", "x2", "y2")
BOX = Record(
    "box",
    dict.fromkeys(_CORNERS, DOUBLE),
    {corner: f"{{0}}[{index}]" for index, corner in enumerate(_CORNERS)},
)
_AREA = {"area": "area({0}.box, view)"}
OBJECT = Record("object", {"label": STRING, "score": UNIT, "box": BOX, "area": DOUBLE}, _AREA)
FACE = Record("face", {"score": UNIT, "box": BOX, "area": DOUBLE}, _AREA)
TEXT_LINE = Record("text line", {"text": STRING, "score": UNIT, "normal": STRING})
TERM = Record(
    "term match",
    {"list": STRING, "term": STRING, "language": STRING, "line": INT}
    | {"category": STRING, "severity": STRING},
)
HASH = Record(
    "hash match",
    {"list": STRING, "kind": STRING, "distance": INT, "reason": STRING, "action": STRING}
    | {"entry": STRING, "turned": STRING},
)
SIMILAR = Record(
    "similar match",
    {"exemplar": STRING, "list": STRING, "distance": DOUBLE, "reason": STRING, "action": STRING},
)
IMAGE = Record("image", {"width": INT, "height": INT, "format": STRING, "bytes": INT})
FINGERPRINT = Record("fingerprint", {"content_id": STRING, "pdq": STRING, "pdq_quality": INT})

VARIABLES: Mapping[str, Type] = {
    "objects": Listing(OBJECT),
    "texts": Listing(TEXT_LINE),
    "text": STRING,
    "words": STRING,
    "terms": Listing(TERM),
    "scores": Mapped(UNIT),
    "calibrated": Mapped(UNIT),
    "hashes": Listing(HASH),
    "similar": Listing(SIMILAR),
    "faces": Listing(FACE),
    "fingerprint": FINGERPRINT,
    "image": IMAGE,
    "metadata": Mapped(DYN),
    "feed": STRING,
    "models": Mapped(STRING),
}
"""What a condition may read, and its type."""

_NO_IMAGE = ImageInfo(0, 0, "", 0)
_NO_FINGERPRINT = Fingerprint("")
_NOT_A_WORD = re.compile(r"[\W_]+")


class FrameView:
    """The variables of one frame, as Python values; those that must be made are made once."""

    __slots__ = (
        "_calibrated",
        "_calibrations",
        "_text",
        "_words",
        "faces",
        "feed",
        "fingerprint",
        "hashes",
        "image",
        "metadata",
        "models",
        "objects",
        "scores",
        "similar",
        "terms",
        "texts",
    )

    def __init__(self, frame: Frame, calibrations: Sequence[Calibration] = ()) -> None:
        findings = frame.findings
        self.objects = findings.objects
        self.texts = findings.texts
        self.terms = findings.terms
        self.scores = findings.scores
        self.hashes = findings.hashes
        self.similar = findings.similar
        self.faces = findings.faces
        self.fingerprint = findings.fingerprint or _NO_FINGERPRINT
        self.image = findings.image or _NO_IMAGE
        self.metadata = frame.metadata
        self.feed = frame.feed
        self.models = findings.models
        self._calibrations = calibrations
        self._text: str | None = None
        self._words: str | None = None
        self._calibrated: dict[str, float] | None = None

    @property
    def text(self) -> str:
        """All lines, joined by line breaks."""
        if self._text is None:
            self._text = "\n".join([line.text for line in self.texts])
        return self._text

    @property
    def words(self) -> str:
        """All words, as `words` gives them."""
        if self._words is None:
            self._words = words([line.text for line in self.texts]) if self.texts else ""
        return self._words

    @property
    def calibrated(self) -> dict[str, float]:
        """Label to calibrated probability. A label that is no score of the picture as a whole
        stands for the object of that label with the highest score."""
        if self._calibrated is None:
            if not self._calibrations:
                self._calibrated = {}
            else:
                best: dict[str, float] = {}
                for found in self.objects:
                    if found.score > best.get(found.label, -1.0):
                        best[found.label] = found.score
                self._calibrated = calibrated_scores(
                    self._calibrations, best | self.scores, self.models.values()
                )
        return self._calibrated


def area(box: Box, view: FrameView) -> float:
    """The share of the picture that `box` takes; 0 where the picture's size is not known."""
    pixels = view.image.width * view.image.height
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1) / pixels if pixels else 0.0


def words(lines: Iterable[str]) -> str:
    """The words of `lines` in lower case, one space before, between and after them.

    `words(["FREE", "money!!"])` is `" free money "`: a phrase is then found whatever its case,
    punctuation and line breaks, and never inside a longer word, by a plain `contains`.
    """
    joined = _NOT_A_WORD.sub(" ", " ".join(lines).casefold()).strip()
    return f" {joined} " if joined else ""


@dataclass(frozen=True, slots=True)
class Needs:
    """What CEL must be given at least: a box costs as much to convert as the rest of an object."""

    boxes: bool
    areas: bool


def cel_value(name: str, view: FrameView, needs: Needs) -> Any:
    """The variable `name` in types that convert to CEL."""
    match name:
        case "objects":
            return [
                {"label": found.label, **_place(found.score, found.box, view, needs)}
                for found in view.objects
            ]
        case "faces":
            return [_place(found.score, found.box, view, needs) for found in view.faces]
        case "texts":
            return [
                {"text": line.text, "score": line.score, "normal": line.normal}
                for line in view.texts
            ]
        case "terms" | "hashes" | "similar":
            listing = VARIABLES[name]
            assert isinstance(listing, Listing)
            assert isinstance(listing.item, Record)
            fields = listing.item.fields
            return [
                {name: getattr(match, name) for name in fields} for match in getattr(view, name)
            ]
        case "fingerprint":
            prints = view.fingerprint
            return {
                "content_id": prints.content_id,
                "pdq": prints.pdq,
                "pdq_quality": prints.pdq_quality,
            }
        case "image":
            image = view.image
            return {
                "width": image.width,
                "height": image.height,
                "format": image.format,
                "bytes": image.bytes,
            }
        case _:
            return getattr(view, name)


def _place(score: float, box: Box, view: FrameView, needs: Needs) -> dict[str, Any]:
    value: dict[str, Any] = {"score": score}
    if needs.boxes:
        value["box"] = dict(zip(_CORNERS, box, strict=True))
    if needs.areas:
        value["area"] = area(box, view)
    return value
