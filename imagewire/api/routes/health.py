"""How the API itself is: for whoever supervises it, and for Prometheus."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from imagewire.api.keys import Caller, Scope, needs
from imagewire.api.services import Shared

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """Whether every store answers."""

    status: Literal["ok", "degraded"]
    stores: dict[str, Literal["ok", "away"]] = Field(
        examples=[{"kafka": "ok", "clickhouse": "ok", "qdrant": "ok"}]
    )


@router.get("/healthz", response_model=Alive)
async def healthz() -> Alive:
    """Whether the process answers, whatever the stores do. Needs no key."""
    return Alive()


@router.get("/readyz", response_model=Ready, responses={503: {"model": Ready}})
async def readyz(shared: Shared, response: Response) -> Ready:
    """Whether Kafka, ClickHouse and Qdrant answer; 503 if one does not. Needs no key."""
    answers = await shared.readiness.stores()
    stores: dict[str, Literal["ok", "away"]] = {
        name: "ok" if answer else "away" for name, answer in answers.items()
    }
    ready = all(answers.values())
    if not ready:
        response.status_code = 503
    return Ready(status="ok" if ready else "degraded", stores=stores)


@router.get("/metrics", response_class=Response)
async def metrics(shared: Shared, _: Annotated[Caller, Depends(needs(Scope.READ))]) -> Response:
    """Metrics of this process in Prometheus' text format; workers have pages of their own."""
    return Response(generate_latest(shared.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
