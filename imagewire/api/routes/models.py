"""Models: which of them worked on what was stored, and how their results drift."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query

from imagewire.api.asked_image import allowed_feeds
from imagewire.api.keys import Caller, Scope, needs
from imagewire.api.policy_models import DriftShown, ModelsAnswer, ModelShown
from imagewire.api.services import Services, Shared
from sinks.clickhouse.reader import QueryError

if TYPE_CHECKING:
    from models.catalog import ModelCard

router = APIRouter(tags=["models"])

Reader = Annotated[Caller, Depends(needs(Scope.READ))]

_SHIFT = 0.25
"""From this index on, credit scoring, where it comes from, speaks of a significant shift."""
_UNKNOWN_TABLE = 60
_MAY_SEE = "(empty({feeds:Array(String)}) OR feed IN {feeds:Array(String)})"
_MODELS = f"""
SELECT toString(entry.1) AS operator, entry.2 AS model, count() AS images,
    min(event_time) AS first_seen, max(event_time) AS last_seen
FROM images_raw FINAL ARRAY JOIN CAST(models, 'Array(Tuple(String, String))') AS entry
WHERE event_time >= now() - toIntervalHour({{hours:UInt32}}) AND {_MAY_SEE}
GROUP BY operator, model
ORDER BY operator, last_seen DESC, model
"""  # noqa: S608 - constants
_DRIFT = f"""
SELECT toString(feed) AS feed, toString(kind) AS kind, toString(model) AS model,
    toString(name) AS name, psi, by_chance, psi > {_SHIFT} AND psi > by_chance AS shifted,
    reference_images, current_images, reference_mean, current_mean
FROM drift
WHERE {_MAY_SEE} AND isFinite(psi) AND isFinite(by_chance)
ORDER BY shifted DESC, psi DESC LIMIT 500
"""  # noqa: S608


@router.get("/v1/models", summary="The models that worked, and how they drift")
async def list_models(
    services: Shared,
    caller: Reader,
    hours: Annotated[int, Query(ge=1, le=8760, description="How far back, by event time.")] = 168,
) -> ModelsAnswer:
    """Every model that took part in images of the last hours, with what the catalogue says of it;
    and how far the scores and embeddings of the last day are from those of the week before."""
    feeds = allowed_feeds(caller)
    rows, drift = await asyncio.gather(
        services.query(_MODELS, {"feeds": feeds, "hours": hours}), _drift(services, feeds)
    )
    cards = await asyncio.to_thread(_cards, services)
    return ModelsAnswer(
        hours=hours, models=[_shown(row, cards.get(row["model"])) for row in rows], drift=drift
    )


async def _drift(services: Services, feeds: list[str]) -> list[DriftShown]:
    async def ask() -> list[DriftShown]:
        try:
            rows = await services.query(_DRIFT, {"feeds": feeds})
        except QueryError as error:
            if error.code == _UNKNOWN_TABLE:  # made by workers of an earlier version
                return []
            raise
        return [DriftShown(**row | {"shifted": bool(row["shifted"])}) for row in rows]

    return await services.drift.get(tuple(feeds), ask)


def _cards(services: Services) -> dict[str, ModelCard]:
    """The catalogue's models by name@version."""
    from models.catalog import load_catalog

    return {card.full_name: card for card in load_catalog(services.settings.models.catalogs)}


def _shown(row: dict[str, Any], card: ModelCard | None) -> ModelShown:
    name, _, version = row["model"].partition("@")
    return ModelShown(
        name=name,
        version=version,
        task=card.task if card else None,
        licence=card.licence if card else None,
        thresholds=dict(card.thresholds) if card else {},
        **row,
    )
