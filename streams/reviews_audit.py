"""Draws images at random for people to check, so that the precision of rules can be estimated.

Whether an image is drawn depends on nothing but its id, so a replay draws the same ones again, and
on the rate of its rule. One number is derived from the id and compared with every rate: an image
that a rule with a high rate draws is no sample of another rule with a lower one, which would
overstate what fires together. So the samples of each rule are as random as if it were alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from operators.findings import Verdict

NO_RULE = "(no rule)"
"""Stands for the rule of verdicts that no rule asked for."""


class AuditSampling:
    """Which verdicts people check.

    Args:
        allow: share of the verdicts `allow` that are drawn, 0 to 1.
        block: share of the verdicts `block`.
        rules: rule to share, in place of those two.
    """

    def __init__(
        self, allow: float, block: float, rules: Mapping[str, float] | None = None
    ) -> None:
        self._rates = {"allow": allow, "block": block}
        self._rules = dict(rules or {})
        self._highest = max(allow, block, *self._rules.values(), 0.0)

    def drawn(self, image_id: str, verdict: Verdict) -> list[str]:
        """The rules that this image is a sample of; empty for nearly all images."""
        if verdict.action == "review" or not self._highest:
            return []
        number = _number(image_id)
        if number >= self._highest:
            return []
        rate = self._rates[verdict.action]
        return [rule for rule in carriers(verdict) if number < self._rules.get(rule, rate)]

    def marked(self, image_id: str, verdict: Verdict) -> Verdict:
        """`verdict` with the rules that the image is drawn for."""
        drawn = self.drawn(image_id, verdict)
        return msgspec.structs.replace(verdict, audit=drawn) if drawn else verdict


def carriers(verdict: Verdict) -> Sequence[str]:
    """The rules that ask for the policy's action, or `(no rule)`: shadow rules have no part in it,
    and of a rule that asked for something else nothing is learned from this verdict."""
    action = verdict.machine_action or verdict.action
    names = [hit.rule for hit in verdict.rules if hit.action == action and not hit.shadow]
    return list(dict.fromkeys(names)) or [NO_RULE]


def _number(image_id: str) -> float:
    """An evenly distributed number in [0, 1) that depends on the id alone."""
    digest = hashlib.blake2b(
        image_id.encode("utf-8", "surrogatepass"), digest_size=8, person=b"audit"
    )
    return int.from_bytes(digest.digest(), "big") / 2**64
