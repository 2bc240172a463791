"""How often workers ask ClickHouse how the models are doing."""

from __future__ import annotations

from pydantic import Field

from streams.settings import Section


class ModelHealthSettings(Section):
    """Drift of scores and embeddings, and what people made of verdicts, asked of ClickHouse and
    told to Prometheus. Of all workers the one does it that has the first partition of the topic of
    images. docs/operations.md says what it means."""

    enabled: bool = Field(True, description="Ask, if ClickHouse is in use.")
    interval: float = Field(
        3600.0,
        ge=1,
        le=86_400,
        description="Seconds between two looks. Windows of drift move by whole hours.",
    )
    query_timeout: float = Field(
        300.0,
        gt=0,
        le=3600,
        description="Seconds that one of these queries may take: drift reads eight days.",
    )
