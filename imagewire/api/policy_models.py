"""What the API says of policies and models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from imagewire.api.image_models import Time, Verdict

if TYPE_CHECKING:
    from operators.policy import Policy, Rule
    from operators.policy_file import Remark


class RulePrecision(BaseModel):
    """How often a rule is right, estimated from images drawn at random."""

    verdict: Verdict
    estimate: float
    low: float = Field(description="Lower end of the 95 % interval (Wilson).")
    high: float
    audited: int = Field(description="Images that it stands on.")


class RuleShown(BaseModel):
    """A rule, and what it does."""

    name: str
    action: Verdict
    condition: str = Field(description="In CEL.")
    explanation: str
    priority: int
    severity: str
    category: str
    feeds: list[str] = Field(description="Patterns of feeds that it looks at; empty: all.")
    enabled: bool
    shadow: bool = Field(description="Evaluated and recorded, never acted on.")
    sample: float = Field(description="Share of images that it looks at.")
    expires: str | None
    line: int
    fired: int | None = Field(None, description="Images of the last hours on which it fired.")
    hit_rate: float | None = Field(None, description="Share of the images of the last hours.")
    precision: list[RulePrecision] = []


class PolicyRemark(BaseModel):
    """A doubt about a policy that can be used, or the reason why one cannot."""

    rule: str
    line: int
    column: int
    message: str


class PolicySeen(BaseModel):
    """A version that verdicts name."""

    version: str
    images: int
    first: Time
    last: Time


class OtherRule(BaseModel):
    """A rule that fired and is none of the policy in force: of an earlier one, or an error."""

    name: str
    fired: int


class PolicyAnswer(BaseModel):
    """The policy in force, with what its rules do."""

    version: str | None = Field(description="null if it cannot be used; `trouble` says why.")
    name: str = Field(description="Under which workers follow it on the topic.")
    source: Literal["topic", "file", "shipped"]
    trouble: str | None = Field(description="What is wrong with it, or with the topic.")
    hours: int = Field(description="Over which hits are counted, by event time.")
    images: int = Field(description="Images of these hours that a policy looked at.")
    rules: list[RuleShown]
    other_rules: list[OtherRule]
    warnings: list[PolicyRemark]
    text: str = Field(description="The policy's TOML; empty for keys that are confined to feeds.")
    versions: list[PolicySeen] = Field(description="Of the last 90 days, the latest first.")


class PolicyText(BaseModel):
    """A policy as it stands in a file."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(max_length=1024 * 1024, description="TOML.")


class PolicyChecked(BaseModel):
    """What came of a check."""

    usable: bool
    version: str | None
    error: str | None = Field(description="With line, column and what to do.")
    rules: list[RuleShown]
    warnings: list[PolicyRemark]


class PolicyTrial(BaseModel):
    """A policy to try on images that are stored."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "text": '[[rules]]\nname = "naked"\nwhen = "scores.nsfw > 0.7"\n'
                    'action = "block"\n',
                    "since": "1d",
                    "feeds": ["gate"],
                }
            ]
        },
    )

    text: str = Field(max_length=1024 * 1024, description="TOML.")
    against: str | None = Field(
        None,
        max_length=1024 * 1024,
        description="Another policy to compare with; the stored verdicts if left out.",
    )
    since: str = Field(
        "7d", max_length=40, description="Images since: 30m, 2h, 7d (ago), or RFC 3339."
    )
    feeds: list[Annotated[str, Field(min_length=1, max_length=128)]] = Field(
        [], max_length=100, description="Only these; all if empty."
    )
    max_images: int = Field(
        20_000, ge=1, le=100_000, description="To look at; of more, an even sample is taken."
    )


class VerdictsChanged(BaseModel):
    """Verdicts that change in one way in one feed."""

    model_config = ConfigDict(populate_by_name=True)

    feed: str
    before: Verdict | Literal["none"] = Field(alias="from")
    after: Verdict = Field(alias="to")
    images: int
    examples: list[str] = Field(description="Ids of up to five.")


class RuleChanged(BaseModel):
    """On how many images of a feed a rule fires."""

    rule: str = Field(description="Shadow rules end in ' (shadow)'.")
    feed: str
    before: int
    after: int
    examples: list[str] = Field(description="Ids of up to five on which it fires only now.")


class PolicyCompared(BaseModel):
    """What a policy would have decided: what `imagewire policy diff --json` gives."""

    before: str = Field(description="What was compared with: a version, or the stored verdicts.")
    after: str = Field(description="The version of the policy that was tried.")
    images: int = Field(description="That were looked at.")
    stored: int = Field(description="That there are since then.")
    one_in: int = Field(description="1, or one in so many images was looked at.")
    complete: bool = Field(description="false: it took too long, and images are missing.")
    changed: int = Field(description="Verdicts that change, of `images`.")
    changes: list[VerdictsChanged] = Field(description="The most frequent first.")
    rules: list[RuleChanged]
    notes: list[str] = Field(description="What one has to know to read this.")


class PolicyPublished(BaseModel):
    """What workers follow from now on."""

    name: str
    version: str | None = Field(description="null: withdrawn, workers go back to their files.")


class ModelShown(BaseModel):
    """A model that took part in verdicts."""

    operator: str
    model: str = Field(description="name@version.")
    name: str
    version: str
    task: str | None = Field(description="null if the catalogue here does not know it.")
    licence: str | None
    thresholds: dict[str, float]
    images: int
    first_seen: Time
    last_seen: Time


class DriftShown(BaseModel):
    """How far a distribution of the last day is from that of the week before."""

    feed: str
    kind: str = Field(description="score or embedding.")
    model: str
    name: str
    psi: float = Field(description="Population stability index; over 0.25 is called a shift.")
    by_chance: float = Field(description="What it stays below by chance, 999 times in 1000.")
    shifted: bool = Field(description="Over 0.25, and over what chance gives.")
    reference_images: int
    current_images: int
    reference_mean: float | None
    current_mean: float | None


class ModelsAnswer(BaseModel):
    """The models that worked, and how their results drift."""

    hours: int
    models: list[ModelShown]
    drift: list[DriftShown] = Field(description="The strongest first.")


def rule_shown(rule: Rule, **seen: Any) -> RuleShown:
    """`rule` as the API says it."""
    return RuleShown(
        name=rule.name,
        action=rule.action,
        condition=rule.condition.source,
        explanation=rule.explanation.template,
        priority=rule.priority,
        severity=rule.severity,
        category=rule.category,
        feeds=list(rule.feeds),
        enabled=rule.enabled,
        shadow=rule.shadow,
        sample=rule.sample,
        expires=None if rule.expires is None else rule.expires.isoformat(),
        line=rule.line,
        **seen,
    )


def remarks_of(policy: Policy) -> list[PolicyRemark]:
    """Doubts about a policy that can be used."""
    from operators.policy_doubts import doubts

    return [_remark(remark) for remark in doubts(policy)]


def _remark(remark: Remark) -> PolicyRemark:
    return PolicyRemark(
        rule=remark.rule, line=remark.line, column=remark.column, message=remark.message
    )
