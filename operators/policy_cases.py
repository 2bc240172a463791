"""Table tests of policies: findings as TOML, and the verdict that is expected.

Moderators write down what a policy is for, image by image, and learn from the table of failures
what a change broke, before any image meets it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from operators.findings import (
    Action,
    Detection,
    Face,
    Fingerprint,
    HashMatch,
    ImageInfo,
    SimilarMatch,
    TermMatch,
    TextLine,
)
from operators.frame import Frame, Origin
from operators.operator import OperatorError
from operators.policy import Policy

MAX_BYTES = 4 * 1024 * 1024
_QUAD = ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0))
_BOX = (0.0, 0.0, 0.0, 0.0)

Corners = tuple[float, float, float, float]


class CasesError(OperatorError):
    """A file of cases that cannot be used: the message says where and why."""


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class _Object(_Strict, frozen=True):
    label: str
    score: float = 1.0
    box: Corners = _BOX


class _Face(_Strict, frozen=True):
    score: float = 1.0
    box: Corners = _BOX


class _Line(_Strict, frozen=True):
    text: str
    score: float = 1.0
    normal: str = ""


class _Image(_Strict, frozen=True):
    width: int = 0
    height: int = 0
    format: str = ""
    bytes: int = 0


class _Hash(_Strict, frozen=True):
    list: str
    kind: Literal["sha256", "pdq"] = "pdq"
    distance: int = 0
    reason: str = ""
    action: Action = "block"
    entry: str = ""
    turned: str = ""


class _Similar(_Strict, frozen=True):
    exemplar: str
    list: str = ""
    distance: float = 0.0
    reason: str = ""
    action: Action = "block"


class _Term(_Strict, frozen=True):
    list: str
    term: str = ""
    language: str = ""
    line: int = 0
    category: str = ""
    severity: str = ""


class _Fingerprint(_Strict, frozen=True):
    content_id: str = ""
    pdq: str = ""
    pdq_quality: int = 0


class Expected(_Strict, frozen=True):
    """The verdict. `rules` and `shadow`: all that fire, in any order; not compared if left out."""

    action: Action
    rules: list[str] | None = None
    shadow: list[str] | None = None


class Case(_Strict, frozen=True):
    """One image, as far as the policy under test reads it, and what is to come of it."""

    name: str
    expect: Expected
    feed: str = "test"
    metadata: dict[str, Any] = {}
    image: _Image | None = None
    fingerprint: _Fingerprint | None = None
    objects: list[_Object] = []
    texts: list[str | _Line] = []
    terms: list[_Term] = []
    scores: dict[str, float] = {}
    hashes: list[_Hash] = []
    similar: list[_Similar] = []
    faces: list[_Face] = []
    models: dict[str, str] = {}

    def frame(self) -> Frame:
        """The image, with what was found in it."""
        frame = Frame(self.name, self.feed, 0, Origin("cases", 0, 0, 0), metadata=self.metadata)
        findings = frame.findings
        if self.image is not None:
            image = self.image
            findings.image = ImageInfo(image.width, image.height, image.format, image.bytes)
        if self.fingerprint is not None:
            prints = self.fingerprint
            findings.fingerprint = Fingerprint(prints.content_id, prints.pdq, prints.pdq_quality)
        lines = [_Line(text=line) if isinstance(line, str) else line for line in self.texts]
        findings.objects = [Detection(one.label, one.score, one.box) for one in self.objects]
        findings.texts = [TextLine(one.text, one.score, _QUAD, one.normal) for one in lines]
        findings.terms = [TermMatch(**msgspec.structs.asdict(one)) for one in self.terms]
        findings.hashes = [HashMatch(**msgspec.structs.asdict(one)) for one in self.hashes]
        findings.similar = [SimilarMatch(**msgspec.structs.asdict(one)) for one in self.similar]
        findings.faces = [Face(one.score, one.box) for one in self.faces]
        findings.scores = self.scores
        findings.models = self.models
        return frame


class _Cases(_Strict, frozen=True):
    cases: list[Case]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a case. `mistakes`: how the verdict differs from what was expected."""

    case: Case
    action: Action
    rules: tuple[str, ...]
    shadow: tuple[str, ...]
    mistakes: tuple[str, ...]


def read_cases(content: bytes, source: str) -> list[Case]:
    """The cases in a TOML file, of which there must be at least one.

    Raises:
        CasesError
    """
    if len(content) > MAX_BYTES:
        raise CasesError(f"{source}: larger than {MAX_BYTES} bytes; split the cases")
    try:
        table = tomllib.loads(content.decode("utf-8"))
        cases = msgspec.convert(table, _Cases).cases
    except UnicodeDecodeError as error:
        raise CasesError(f"{source}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise CasesError(f"{source}: not valid TOML: {error}") from error
    except (msgspec.ValidationError, RecursionError) as error:
        place = str(error).replace("$.", "")
        raise CasesError(f"{source}: {place}; docs/policy.md describes cases") from error
    if not cases:
        raise CasesError(f"{source}: no [[cases]]; a test of nothing always passes")
    return cases


def outcomes(policy: Policy, cases: Sequence[Case]) -> list[Outcome]:
    """What `policy` makes of `cases`. Rules that look at a sample look at every case."""
    whole = Policy(
        tuple(replace(rule, sample=1.0) for rule in policy.rules),
        policy.version,
        policy.calibrations,
        policy.taxonomy,
    )
    return [_outcome(whole, case) for case in cases]


def _outcome(policy: Policy, case: Case) -> Outcome:
    verdict = policy.evaluate(case.frame())
    fired = tuple(hit.rule for hit in verdict.rules if not hit.shadow)
    shadow = tuple(hit.rule for hit in verdict.rules if hit.shadow)
    mistakes = []
    if verdict.action != case.expect.action:
        mistakes.append(f"{verdict.action} instead of {case.expect.action}")
    for found, expected, kind in (
        (fired, case.expect.rules, "rule"),
        (shadow, case.expect.shadow, "shadow rule"),
    ):
        if expected is None:
            continue
        mistakes += [f"{kind} '{name}' did not fire" for name in expected if name not in found]
        mistakes += [f"{kind} '{name}' fired" for name in found if name not in expected]
    return Outcome(case, verdict.action, fired, shadow, tuple(mistakes))
