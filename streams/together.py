"""Runs the tasks of a stage side by side, and lets the first error out as it is.

`asyncio.TaskGroup` wraps errors in groups, one more at each level, and a person who reads why a
worker ended should meet the error and not its wrapping.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def run_together(tasks: dict[str, Coroutine[Any, Any, None]]) -> None:
    """Run `tasks`, by name, until all have ended, one raises or the caller is cancelled.

    None of them runs any more when this returns.

    Raises:
        Exception: the first error; asyncio logs others that come with it.
    """
    running = [asyncio.create_task(work, name=name) for name, work in tasks.items()]
    try:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
        for task in running:
            if task in done:
                task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)
