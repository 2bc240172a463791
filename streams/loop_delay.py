"""Measures how late the event loop is.

Heartbeats to Kafka, fetches and the health endpoint all live on one loop; Python work on it of more
than a few milliseconds would be felt by all of them. How late a timer comes tells.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

_EVERY_SECONDS = 0.1


async def measure_loop_delay(observe: Callable[[float], None]) -> None:
    """Tell `observe` ten times a second how many seconds late the loop was, until cancelled."""
    while True:
        due = time.perf_counter() + _EVERY_SECONDS
        await asyncio.sleep(_EVERY_SECONDS)
        observe(max(0.0, time.perf_counter() - due))
