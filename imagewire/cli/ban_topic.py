"""How the commands of `imagewire ban` reach the topic of bans."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from imagewire.bans import Bans
    from imagewire.settings import Settings

Data = Annotated[Path | None, Parameter(name=["--data", "-d"])]
Config = Annotated[Path | None, Parameter(name=["--config", "-c"])]


def with_bans(
    data: Path | None, config: Path | None, work: Callable[[Bans, Settings], Awaitable[None]]
) -> None:
    from imagewire.bans import bans
    from imagewire.connection import find_connection
    from imagewire.reachability import reaching

    connection = find_connection(data, config)

    async def run() -> None:
        async with bans(connection.settings.kafka) as topic:
            await work(topic, connection.settings)

    with reaching(connection, "Kafka"):
        asyncio.run(run())


async def require_list(topic: Bans, name: str) -> None:
    from imagewire.cli.outcome import CommandError

    known = await topic.lists()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"make it with: imagewire ban set {name}"
        raise CommandError(f"there is no list '{name}'; {hint}")
