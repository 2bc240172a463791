"""What the API says of reviews: images that wait, decisions, and how people and rules agree."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, model_validator

from imagewire.api.image_models import ImageSummary, Time, Verdict
from imagewire.api.stored_images import public_uri
from sinks.event_time import rfc3339
from streams.record_fields import MAX_ID_LENGTH
from streams.reviews import MAX_LABELS, MAX_REASON_LENGTH, ReviewDecision

MOST_DECISIONS = 200

Why = Literal["policy", "audit"]
Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]
Reviewer = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=128,
        description="Who decides: the key's name. Keys with the scope admin may give another.",
    ),
]


class FoundObject(BaseModel):
    """An object in an image."""

    label: str
    score: float


class FiredRule(BaseModel):
    """A rule that fired on an image."""

    rule: str
    action: Verdict
    explanation: str
    shadow: bool = Field(description="Evaluated and recorded, with no part in the verdict.")


class WaitingImage(ImageSummary):
    """An image that waits for a person, with all that helps to decide."""

    why: Why = Field(description="The policy asks for a person, or it was drawn for an audit.")
    waiting_since: Time
    policy: str = Field(description="Version of the policy that said so.")
    audited_rules: list[str] = Field(description="Rules that it was drawn for, to check them.")
    fired: list[FiredRule]
    objects: list[FoundObject]
    texts: list[str]
    scores: dict[str, float | None]
    format: str
    metadata: dict[str, Any] = Field(description="What the producer said of it.")
    claimed_by: str | None = Field(description="Who looks at it now.")
    claimed_until: Time | None = Field(None, description="Until when it is kept from others.")


class QueueLength(BaseModel):
    """What waits."""

    policy: int = Field(description="Images that the policy asks people about.")
    audit: int = Field(description="Images drawn to check rules.")
    oldest: Time | None = Field(description="Since when the first of them has waited.")


class ReviewQueue(BaseModel):
    """A page of the queue, the longest waiting first."""

    images: list[WaitingImage]
    next: str | None = Field(description="Give it as `cursor` to go on; null at the end.")
    waiting: QueueLength


class NextImage(BaseModel):
    """The image to decide now."""

    image: WaitingImage | None = Field(description="null when nothing waits.")
    waiting: QueueLength


class AskedDecision(BaseModel):
    """What a person decides over an image."""

    model_config = ConfigDict(extra="forbid")

    image_id: Id
    decision: Literal["allow", "block"]
    reason: str = Field("", max_length=MAX_REASON_LENGTH, description="Why, in a sentence.")
    labels: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        [], max_length=MAX_LABELS, description="What is in the picture, for statistics."
    )


class OneDecision(AskedDecision):
    """One decision."""

    reviewer: Reviewer = None


class ManyDecisions(BaseModel):
    """Decisions over several images."""

    model_config = ConfigDict(extra="forbid")

    decisions: list[AskedDecision] = Field(min_length=1, max_length=MOST_DECISIONS)
    reviewer: Reviewer = None

    @model_validator(mode="after")
    def _each_once(self) -> ManyDecisions:
        ids = [each.image_id for each in self.decisions]
        if len(set(ids)) < len(ids):
            raise ValueError("an image stands in the list twice; decide over it once")
        return self


class MadeDecision(BaseModel):
    """A decision that is on its way to every worker."""

    image_id: str
    decision: Literal["allow", "block"]
    reviewer: str
    decision_id: str
    decided_at: Time
    reason: str
    labels: list[str]


class DecisionsAnswer(BaseModel):
    """What was decided."""

    decisions: list[MadeDecision]
    unknown: list[str] = Field(description="Ids of images that are not there; not decided.")


class Undo(BaseModel):
    """Which decisions to take back; your last one if none is named."""

    model_config = ConfigDict(extra="forbid")

    image_id: Id | None = None
    image_ids: list[Id] = Field([], max_length=MOST_DECISIONS)
    reviewer: Reviewer = None

    @property
    def ids(self) -> list[str]:
        return list(dict.fromkeys([*([self.image_id] if self.image_id else []), *self.image_ids]))


class WithdrawnDecision(BaseModel):
    """A decision that was taken back."""

    image_id: str
    decision: Literal["allow", "block"] = Field(description="What it had been.")
    decision_id: str


class UndoAnswer(BaseModel):
    """What was taken back: the policy's verdicts stand again."""

    withdrawn: list[WithdrawnDecision]


class ReviewStatistics(BaseModel):
    """The queue, who decided how much, and how often people and rules agree."""

    queue: QueueLength
    reviewers: list[dict[str, Any]]
    rule_agreement: list[dict[str, Any]] = Field(
        description="What people made of the verdicts that they saw: no estimate of a rule."
    )
    rule_precision: list[dict[str, Any]] = Field(
        description="How often a rule is right, from audit samples, with a 95 % interval."
    )
    reviewer_agreement: list[dict[str, Any]]


def waiting_image(row: Mapping[str, Any]) -> WaitingImage:
    """The image in a row of the queue."""
    objects = sorted(_pairs(row["objects"]), key=lambda pair: -pair[1])
    verdict = row["verdict"]
    latency = row["latency_ms"]
    return WaitingImage(
        image_id=row["image_id"],
        content_id=row["content_id"] or None,
        feed=row["feed"],
        event_time=moment(row["event_time"]),
        uri=public_uri(row["uri"]),
        verdict=verdict if verdict in ("allow", "review", "block") else None,
        decided_by="policy",
        rules=[hit["rule"] for hit in row["rules"] if hit["shadow"] == "no"],
        labels=list(dict.fromkeys(label for label, _ in objects)),
        text="\n".join(row["texts"])[:4000],
        width=row["width"],
        height=row["height"],
        latency_ms=None if latency is None else round(latency, 3),
        why=row["why"],
        waiting_since=moment(row["kafka_time"]),
        policy=row["policy"],
        audited_rules=list(row["audited_rules"]),
        fired=[
            FiredRule(
                rule=hit["rule"],
                action=hit["action"] if hit["action"] != "none" else "allow",
                explanation=hit["explanation"],
                shadow=hit["shadow"] == "yes",
            )
            for hit in row["rules"]
        ],
        objects=[FoundObject(label=label, score=round(score, 4)) for label, score in objects],
        texts=list(row["texts"]),
        scores={
            name: None if score != score else round(score, 4)
            for name, score in row["scores"].items()
        },
        format=row["format"],
        metadata=_metadata(row["metadata"]),
        claimed_by=row.get("claimed_by"),
        claimed_until=row.get("claimed_until"),
    )


def queue_of(row: Mapping[str, Any]) -> QueueLength:
    """What `imagewire.reviews_queue.queue_length` found."""
    some = row["policy"] or row["audit"]
    return QueueLength(
        policy=row["policy"], audit=row["audit"], oldest=moment(row["oldest"]) if some else None
    )


def made(decision: ReviewDecision) -> MadeDecision:
    """`decision` as the API says it."""
    return MadeDecision(
        **msgspec.to_builtins(decision, str_keys=True)
        | {"reason": decision.reason, "labels": list(decision.labels)}
    )


def moment(value: datetime) -> str:
    """A time of ClickHouse's in RFC 3339 with milliseconds."""
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return rfc3339(round(aware.timestamp() * 1000))


def _pairs(objects: list[Any]) -> list[tuple[str, float]]:
    """Tuples come from Arrow as records with numbered fields."""
    return [tuple(each.values()) if isinstance(each, dict) else each for each in objects]


def _metadata(text: str) -> dict[str, Any]:
    with contextlib.suppress(msgspec.MsgspecError):
        found = msgspec.json.decode(text or "{}")
        if isinstance(found, dict):
            return found
    return {}
