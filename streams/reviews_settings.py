"""Settings of what people do: their decisions, and the images drawn for them to check."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from streams.settings import Section

Rate = Annotated[float, Field(ge=0, le=1)]


class ReviewSettings(Section):
    """Decisions of people over images."""

    max_overrides: int = Field(
        1_000_000,
        ge=1,
        le=50_000_000,
        description="Most decisions that a worker holds in memory, by image and by content, some "
        "240 bytes each: half as many images, as each has both. Beyond, those that came longest "
        "ago are not applied to new images any more; ClickHouse keeps them all.",
    )
    lease: float = Field(
        600.0,
        ge=10,
        le=86_400,
        description="Seconds for which an image that `imagewire review next` shows is kept from "
        "other reviewers.",
    )


class AuditSettings(Section):
    """Verdicts that are drawn at random for people to check, so that the precision of each rule can
    be estimated. Which images are drawn depends on their ids alone, so a replay draws the same."""

    allow: Rate = Field(
        0.0, description="Share of the verdicts allow, for each rule; 0.001 is one in a thousand."
    )
    block: Rate = Field(0.0, description="Share of the verdicts block, for each rule.")
    rules: dict[str, Rate] = Field(
        default_factory=dict,
        description="Shares of single rules, in place of the two above. The rule '(no rule)' "
        "stands for images that no rule asked for.",
    )
