"""What a policy would have decided over stored images, as objects. docs/api/asking.md says more."""

from __future__ import annotations

from msgspec import Struct


class VerdictChange(Struct, frozen=True, kw_only=True, rename={"before": "from", "after": "to"}):
    """Verdicts of a feed that change in one way; `examples`: ids of some."""

    feed: str
    before: str
    after: str
    images: int
    examples: list[str] = []


class RuleChange(Struct, frozen=True, kw_only=True):
    """On how many images of a feed a rule fires; `examples`: ids of some that are new."""

    rule: str
    feed: str
    before: int
    after: int
    examples: list[str] = []


class PolicyDiff(Struct, frozen=True, kw_only=True):
    """Which verdicts would change, of the `images` that were looked at: all that are `stored`, or
    one in `one_in`. Not `complete`: it took too long, and images are missing."""

    before: str
    after: str
    images: int
    stored: int
    one_in: int = 1
    complete: bool = True
    changed: int = 0
    changes: list[VerdictChange] = []
    rules: list[RuleChange] = []
    notes: list[str] = []
