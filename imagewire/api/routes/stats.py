"""Statistics: throughput, latency, failures, and what waits."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from imagewire.api.asked_image import allowed_feeds
from imagewire.api.figures import step_seconds
from imagewire.api.image_models import Time
from imagewire.api.keys import Caller, Scope, needs
from imagewire.api.services import Shared
from sinks.event_time import rfc3339

router = APIRouter(tags=["statistics"])

Reader = Annotated[Caller, Depends(needs(Scope.READ))]


class StatisticsPoint(BaseModel):
    """One step of time."""

    time: Time
    images_per_second: float
    latency_p50_ms: float | None = Field(description="From Kafka to the row; null: no images.")
    latency_p99_ms: float | None
    failures: int = Field(description="Images that became dead letters.")


class LagNow(BaseModel):
    """What the workers have not acknowledged, in all feeds."""

    records: int
    seconds: float = Field(description="How long the oldest of them has waited.")


class Totals(BaseModel):
    """What there is."""

    images: int
    review_waiting: int = Field(description="Images that wait for a person.")
    dead_letters: int = Field(description="Images that could not be analysed so far.")


class StatisticsAnswer(BaseModel):
    """Figures of the last minutes."""

    points: list[StatisticsPoint] = Field(description="The oldest first; the step under way apart.")
    step_seconds: int = Field(description="How far they lie apart.")
    lag: LagNow | None = Field(description="null while Kafka does not answer.")
    totals: Totals


@router.get("/v1/stats", summary="Throughput, latency, failures, and what waits")
async def show_statistics(
    services: Shared,
    caller: Reader,
    minutes: Annotated[int, Query(ge=1, le=1440, description="How far back.")] = 10,
    feed: Annotated[str | None, Query(max_length=128, description="Of this feed only.")] = None,
) -> StatisticsAnswer:
    """Figures of the last minutes. They are a few seconds old at most times."""
    if feed:
        caller.require_feed(feed)
    feeds = [feed] if feed else allowed_feeds(caller)
    figures = services.figures
    found = await figures.points(minutes, feeds)
    lag = await figures.lag()
    return StatisticsAnswer(
        points=[
            StatisticsPoint(
                time=rfc3339(each.at_ms),
                images_per_second=each.images_per_second,
                latency_p50_ms=each.latency_p50_ms,
                latency_p99_ms=each.latency_p99_ms,
                failures=each.failures,
            )
            for each in found
        ],
        step_seconds=step_seconds(minutes),
        lag=None if lag is None else LagNow(records=lag.records, seconds=lag.seconds),
        totals=Totals(**await figures.totals(feeds)),
    )
