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
    *,
    id: str | None = None,
    limit: int = 10,
    feed: str | None = None,
    verdict: Literal["allow", "review", "block"] | None = None,
    json: bool = False,
    data: Annotated[Path | None, Parameter(name=["--data", "-d"])] = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
) -> int:
    """Find the stored images that look most like a photo, or like a stored image.

    Exit code 1 if nothing was found.

    Parameters
    ----------
    photo: a file to search by.
    id: the image_id of a stored image to search by instead.
    limit: how many to show.
    feed: of this feed only.
    verdict: with this verdict only.
    json: print one JSON object for each instead of a table.
    data: data directory of the running stack to search.
    config: settings file that names the Qdrant to search.
    """
    from imagewire.cli.outcome import EXIT_FAILED, CommandError
    from imagewire.cli.terminal import print_json, print_note
    from imagewire.connection import find_connection
    from imagewire.embedding_of_photo import UnusablePhotoError, embedding_of_photo
    from sinks.qdrant.reader import ImageNotFoundError, VectorReader

    if (photo is None) == (id is None):
        raise CommandError("name either a photo or --id, to say what to search by")
    if limit < 1:
        raise CommandError(f"--limit is {limit}; ask for at least 1")
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
    from rich.table import Table
    from rich.text import Text

    from imagewire.cli.terminal import console, printable

    table = Table("similarity", "image", "feed", "time", "verdict", "labels", "uri")
    for similar in found:
        payload = similar.payload
        table.add_row(
            f"{similar.score:.3f}",
            *(
                Text(printable(str(value or "")), overflow="fold")
                for value in (
                    similar.image_id,
                    payload.get("feed"),
                    payload.get("event_time"),
                    payload.get("verdict"),
                    ", ".join(payload.get("labels") or []),
                    payload.get("uri"),
                )
            ),
        )
    console.print(table)
