"""How a moment is spelled wherever Imagewire writes text: Kafka records and vector payloads."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def rfc3339(milliseconds: int) -> str:
    """Milliseconds since the epoch as RFC 3339 in UTC: `2026-01-31T23:59:59.250Z`."""
    seconds, remainder = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{remainder:03d}Z"


@lru_cache(1024)
def _second(seconds: int) -> str:
    # Images of one moment come together, and each is written to several places.
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
