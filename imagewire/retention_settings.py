"""How long what was found is kept, by table and by feed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from streams.settings import Section

Days = Annotated[int, Field(ge=1, le=36_500)]


class RetentionSettings(Section):
    """Days after which rows and vectors are deleted, counted from when they were written. Workers
    look at their start and then every so often. clickhouse.retention_days is the longest for rows
    of images and failures: what stands here can only be shorter."""

    images_days: Days | None = Field(None, description="Rows of images.")
    failures_days: Days | None = Field(None, description="Rows of failures.")
    reviews_days: Days | None = Field(
        None, description="Decisions of people; kept for ever when not set."
    )
    vectors_days: Days | None = Field(
        None, description="Vectors in Qdrant; kept for ever when not set."
    )
    feeds: dict[str, Days] = Field(
        default_factory=dict,
        description="Feed to days, for rows of every table and for vectors; holds if it is shorter "
        "than what holds for all feeds.",
    )
    interval: float = Field(3600.0, ge=1, le=86_400, description="Seconds between two looks.")
