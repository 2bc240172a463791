"""ClickHouse and Qdrant refuse, hang, answer 503, reset in the middle, or lose the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bench.chaos.producer import Load
from bench.chaos.proxy import FaultyProxy, Mode
from bench.chaos.report import Row
from bench.chaos.stage import Stage

CLICKHOUSE_MODES = (Mode.REFUSE, Mode.HANG, Mode.UNAVAILABLE, Mode.RESET, Mode.LOSE_ANSWER)
QDRANT_MODES = (Mode.REFUSE, Mode.HANG, Mode.RESET, Mode.LOSE_ANSWER)


async def clickhouse_away(stage: Stage, seconds: float, modes: Sequence[Mode]) -> Row:
    """Each of `modes` between the worker and ClickHouse for `seconds`."""
    return await _away(stage, "ClickHouse", stage.clickhouse_proxy, seconds, modes)


async def qdrant_away(stage: Stage, seconds: float, modes: Sequence[Mode]) -> Row:
    """Each of `modes` between the worker and Qdrant for `seconds`."""
    return await _away(stage, "Qdrant", stage.qdrant_proxy, seconds, modes)


async def _away(
    stage: Stage, name: str, proxy: FaultyProxy, seconds: float, modes: Sequence[Mode]
) -> Row:
    async def act(load: Load) -> None:
        for mode in modes:
            await stage.progress(load, 30)
            # Long enough for the client's own time-out of 10 s to be what ends a hang.
            lasting = max(seconds, 13.0) if mode is Mode.HANG else seconds
            stage.report(f"{name}: {mode} for {lasting:g} s")
            await proxy.turn(mode)
            try:
                await asyncio.sleep(lasting)
            finally:
                await proxy.turn(Mode.PASS)
            await asyncio.sleep(3)
        await stage.progress(load, 30)

    row = await stage.under_load(f"{name} away: {', '.join(modes)}", act)
    row.note = f"{seconds:g} s each, the hang 13 s"
    return row
