"""The policy in force: its rules and what they do; check, publish and withdraw one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Depends, Query

from imagewire.api.asked_image import allowed_feeds
from imagewire.api.image_queries import EARLIEST_MS, LATEST_MS
from imagewire.api.keys import Caller, Scope, needs
from imagewire.api.picture_answers import told_when_busy
from imagewire.api.policy_models import (
    OtherRule,
    PolicyAnswer,
    PolicyChecked,
    PolicyCompared,
    PolicyPublished,
    PolicySeen,
    PolicyText,
    PolicyTrial,
    RulePrecision,
    remarks_of,
    rule_shown,
)
from imagewire.api.problems import Problem, invalid
from imagewire.api.services import Services, Shared
from imagewire.policy_topic import publish_policy
from imagewire.replaying import since_ms

if TYPE_CHECKING:
    from operators.policy import Policy
    from operators.policy_file import Rule

router = APIRouter(tags=["policy"])

Reader = Annotated[Caller, Depends(needs(Scope.READ))]
Admin = Annotated[Caller, Depends(needs(Scope.ADMIN))]

_MAY_SEE = "(empty({feeds:Array(String)}) OR feed IN {feeds:Array(String)})"
_SINCE = "event_time >= now() - toIntervalHour({hours:UInt32})"
_HITS = f"""
SELECT toString(hit) AS rule, count() AS fired
FROM images_raw FINAL ARRAY JOIN rules.rule AS hit
WHERE {_SINCE} AND {_MAY_SEE}
GROUP BY rule
"""  # noqa: S608 - constants
_IMAGES = f"""
SELECT count() AS images FROM images_raw FINAL
WHERE machine_verdict != 'none' AND {_SINCE} AND {_MAY_SEE}
"""  # noqa: S608
_VERSIONS = f"""
SELECT toString(policy) AS version, count() AS images, min(event_time) AS first,
    max(event_time) AS last
FROM images_raw
WHERE policy != '' AND event_time >= now() - toIntervalDay(90) AND {_MAY_SEE}
GROUP BY version ORDER BY last DESC, version LIMIT 50
"""  # noqa: S608
_PRECISION = """
SELECT toString(rule) AS rule, machine_verdict AS verdict, precision AS estimate, low, high, audited
FROM rule_precision
"""


@router.get("/v1/policy", summary="The policy in force, and what its rules do")
async def show_policy(
    services: Shared,
    caller: Reader,
    hours: Annotated[int, Query(ge=1, le=8760, description="Over which hits are counted.")] = 24,
) -> PolicyAnswer:
    """The policy that workers with the settings of this API follow, how often each rule fired in
    the last hours, how often it is right, and the versions that verdicts name. A key that is
    confined to feeds sees the rules that look at them, and not the text."""
    feeds = allowed_feeds(caller)
    asked: dict[str, Any] = {"feeds": feeds, "hours": hours}
    in_force, hits, [counted], versions, precisions = await asyncio.gather(
        services.policy.now(),
        services.query(_HITS, asked),
        services.query(_IMAGES, asked),
        services.query(_VERSIONS, {"feeds": feeds}),
        services.query(_PRECISION),
    )
    policy, images = in_force.policy, int(counted["images"])
    fired = {row["rule"]: int(row["fired"]) for row in hits}
    by_rule: dict[str, list[RulePrecision]] = {}
    # Estimates are of all feeds together.
    for row in [] if feeds else precisions:
        by_rule.setdefault(row.pop("rule"), []).append(RulePrecision(**row))
    rules = [] if policy is None else _concerning(policy.rules, feeds)
    warnings = [] if policy is None or feeds else await asyncio.to_thread(remarks_of, policy)
    return PolicyAnswer(
        version=None if policy is None else policy.version,
        name=services.settings.policy.name,
        source=in_force.source,
        trouble=in_force.trouble,
        hours=hours,
        images=images,
        rules=[
            rule_shown(
                rule,
                fired=fired.get(rule.name, 0),
                hit_rate=round(fired.get(rule.name, 0) / images, 6) if images else None,
                precision=by_rule.get(rule.name, []),
            )
            for rule in rules
        ],
        other_rules=[
            OtherRule(name=name, fired=count)
            for name, count in sorted(fired.items(), key=lambda item: -item[1])
            if name not in {rule.name for rule in rules}
        ],
        warnings=warnings,
        text="" if feeds else in_force.text,
        versions=[PolicySeen(**row) for row in versions],
    )


def _concerning(rules: Sequence[Rule], feeds: Sequence[str]) -> list[Rule]:
    """The rules that look at one of these feeds (any, if none is named), without their patterns
    for others: whose names are part of what a confined caller must not know."""
    if not feeds:
        return list(rules)
    found = []
    for rule in rules:
        patterns = tuple(
            pattern for pattern in rule.feeds if any(fnmatchcase(feed, pattern) for feed in feeds)
        )
        if patterns or not rule.feeds:
            found.append(replace(rule, feeds=patterns))
    return found


@router.post("/v1/policy/check", summary="Check a policy")
async def check_policy(
    services: Shared, caller: Admin, policy: Annotated[PolicyText, Body()]
) -> PolicyChecked:
    """Whether workers could use a policy, and rules that can hardly be meant. Nothing changes."""
    return await asyncio.to_thread(services.trials.check, policy.text)


@router.post("/v1/policy/diff", summary="Try a policy on what is stored")
async def diff_policy(
    services: Shared, caller: Admin, trial: Annotated[PolicyTrial, Body()]
) -> PolicyCompared:
    """Which verdicts would change under a policy: it is evaluated over the findings of stored
    images, and no model runs. After a minute what was found so far is told, and `complete` is
    false. 503 with Retry-After if others wait already."""
    try:
        begin_ms = min(max(since_ms(trial.since), EARLIEST_MS), LATEST_MS)
    except (ValueError, OverflowError) as error:
        raise invalid(f"since: {error}", where="since") from error
    new = await _readable(services, trial.text, "text")
    other = None if trial.against is None else await _readable(services, trial.against, "against")
    with told_when_busy():
        found = await services.trials.compare(new, other, begin_ms, trial.feeds, trial.max_images)
    return PolicyCompared(**found.fields())


@router.put("/v1/policy", summary="Put a policy in force")
async def put_policy(
    services: Shared, caller: Admin, policy: Annotated[PolicyText, Body()]
) -> PolicyPublished:
    """Put a policy in force on every worker that follows the control topic, until another is put
    there or it is withdrawn. One that cannot be used is refused, with line and column."""
    name = services.settings.policy.name
    read = await _readable(services, policy.text, "text")
    await publish_policy(services.settings.kafka, name, policy.text.encode())
    return PolicyPublished(name=name, version=read.version)


@router.delete("/v1/policy", summary="Withdraw the policy that was put in force")
async def withdraw_policy(services: Shared, caller: Admin) -> PolicyPublished:
    """Send the workers back to the policy in their settings."""
    name = services.settings.policy.name
    await publish_policy(services.settings.kafka, name, None)
    return PolicyPublished(name=name, version=None)


async def _readable(services: Services, text: str, where: str) -> Policy:
    """The policy `text`, which stands in the member `where` of the request.

    Raises:
        Problem: 422, with line and column, if workers could not use it.
    """
    from operators.operator import OperatorError

    try:
        return await asyncio.to_thread(services.trials.read, text)
    except OperatorError as error:
        raise Problem(
            422,
            "unusable-policy",
            "The policy cannot be used",
            str(error),
            errors=[{"where": where, "what": str(error)}],
        ) from error
