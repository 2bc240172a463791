"""`imagewire search`: images that look like another."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from sinks.qdrant.reader import Similar


def search(
    photo: Path | None = None,
    /,
    *,
    id: str | None = None,
    limit: int = 10,
    feed: str | None = None,
    verdict: Literal["allow", "review", "block"] | None = None,
    json: bool = False,
    data: Annotated[Path | None, Parameter(name=["--data", "-d"])] = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
) -> int:
    """Find stored images that look like a photo, or like one of them.

    Exit code 1 if nothing was found.

    Args:
        photo: A file to search by.
        id: The image_id of a stored image to search by instead.
        limit: How many to show.
        feed: Of this feed only.
        verdict: With this verdict only.
        json: Print one JSON object for each instead of a table.
        data: Data directory of the running stack to search.
        config: Settings file that names the Qdrant to search.
    """
    from imagewire.cli.outcome import EXIT_FAILED, CommandError, UsageError
    from imagewire.cli.terminal import print_json, print_note
    from imagewire.connection import find_connection
    from imagewire.embedding_of_photo import UnusablePhotoError, embedding_of_photo
    from sinks.qdrant.reader import ImageNotFoundError, VectorReader

    if (photo is None) == (id is None):
        raise UsageError("name either a photo or --id, to say what to search by")
    if limit < 1:
        raise UsageError(f"--limit is {limit}; ask for at least 1")
    settings = find_connection(data, config).settings
    query: dict[str, Any] = {"image_id": id}
    if photo is not None:
        try:
            query = {"vector": embedding_of_photo(photo, settings).vector}
        except UnusablePhotoError as error:
            raise CommandError(str(error)) from error

    async def find() -> list[Similar]:
        async with VectorReader(settings.qdrant) as reader:
            return await reader.search(**query, limit=limit, feed=feed, verdict=verdict)

    try:
        found = asyncio.run(find())
    except ImageNotFoundError as error:
        raise CommandError(str(error)) from error
    if json:
        for similar in found:
            print_json(
                {"image_id": similar.image_id, "score": similar.score, **similar.payload},
                lines=True,
            )
    elif found:
        _print_table(found)
    else:
        print_note("nothing found")
    return 0 if found else EXIT_FAILED


def _print_table(found: list[Similar]) -> None:
    """Columns that fit a narrow terminal; `--json` has everything."""
    from rich.table import Table
    from rich.text import Text

    from imagewire.cli.terminal import console, printable

    table = Table(box=None, pad_edge=False)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("image", overflow="fold", ratio=3)
    table.add_column("feed", overflow="ellipsis", no_wrap=True, max_width=12)
    table.add_column("verdict", no_wrap=True)
    table.add_column("labels", overflow="ellipsis", no_wrap=True, ratio=2)
    table.add_column("uri", overflow="ellipsis", no_wrap=True, ratio=2)
    for similar in found:
        payload = similar.payload
        texts = (
            similar.image_id,
            payload.get("feed"),
            payload.get("verdict"),
            ", ".join(payload.get("labels") or []),
            payload.get("uri"),
        )
        table.add_row(f"{similar.score:.3f}", *(Text(printable(str(t or ""))) for t in texts))
    console.print(table)
