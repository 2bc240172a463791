"""What is odd about a usable policy: rules that can never decide anything, and values out of range.

Nothing here stops a worker. `imagewire policy check` prints it, because a rule that never fires
looks exactly like a feed without such images.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator

from operators.findings import ACTIONS
from operators.policy import Policy
from operators.policy_file import Remark, Rule
from operators.policy_tree import Node

_PLACE = re.compile(r"\bat=\d+")


def doubts(policy: Policy, today: datetime.date | None = None) -> list[Remark]:
    """Everything odd about `policy`, in the order of the file."""
    today = today or datetime.datetime.now(datetime.UTC).date()
    found = [*policy.remarks]
    for rule in policy.rules:
        found.extend(_about(rule, message) for message in _of_rule(rule, policy, today))
    return sorted(found, key=lambda remark: (remark.line, remark.column))


def _about(rule: Rule, message: str) -> Remark:
    return Remark(message, rule.name, rule.line, rule.column)


def _of_rule(rule: Rule, policy: Policy, today: datetime.date) -> Iterator[str]:
    if rule.expired(today):
        yield f"expired after {rule.expires}: it is not evaluated any more; delete or renew it"
    if rule.condition.always is False:
        yield "unreachable: no image meets the condition"
    if "calibrated" in rule.condition.variables and not policy.calibrations:
        yield (
            "reads 'calibrated', and no calibration file is named (policy.calibrations): "
            "it holds no label"
        )
    if not rule.enabled or rule.shadow or rule.condition.always is False:
        return
    for other in policy.rules:
        if other is rule or not _acts(other, today) or not _covers(other, rule):
            continue
        if other.priority > rule.priority and other.condition.always is True:
            yield (
                f"decides nothing: rule '{other.name}' fires on every image of its feeds and has "
                "a higher priority"
            )
            return
        if _same(other.condition.tree, rule.condition.tree) and _stronger(other, rule, policy):
            yield (
                f"decides nothing: rule '{other.name}' has the same condition for these feeds "
                "and is heard first"
            )
            return


def _acts(rule: Rule, today: datetime.date) -> bool:
    return rule.enabled and not rule.shadow and rule.sample == 1.0 and not rule.expired(today)


def _covers(other: Rule, rule: Rule) -> bool:
    """Whether `other` looks at every feed that `rule` looks at, as far as the patterns show."""
    return not other.feeds or bool(rule.feeds and set(rule.feeds) <= set(other.feeds))


def _stronger(other: Rule, rule: Rule, policy: Policy) -> bool:
    if other.priority != rule.priority:
        return other.priority > rule.priority
    if other.action != rule.action:
        return ACTIONS.index(other.action) > ACTIONS.index(rule.action)
    # Of two equal rules, the second is the one to delete.
    return policy.rules.index(other) < policy.rules.index(rule)


def _same(one: Node, other: Node) -> bool:
    """Whether two conditions are the same but for blanks and comments."""
    return _PLACE.sub("", repr(one)) == _PLACE.sub("", repr(other))
