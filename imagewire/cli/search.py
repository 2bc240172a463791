"""`imagewire search`: images that look like another."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from imagewire.settings import Settings
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
    from imagewire.reachability import reaching
    from sinks.qdrant.reader import ImageNotFoundError, VectorReader

    if (photo is None) == (id is None):
        raise UsageError("name either a photo or --id, to say what to search by")
    if limit < 1:
        raise UsageError(f"--limit is {limit}; ask for at least 1")
    connection = find_connection(data, config)
    settings = connection.settings
    query: dict[str, Any] = {"image_id": id}

    async def find() -> list[Similar]:
        async with VectorReader(settings.qdrant) as reader:
            return await reader.search(**query, limit=limit, feed=feed, verdict=verdict)

    try:
        with reaching(connection, "Qdrant"):
            if photo is not None:
                query = {"vector": _looks_of(photo, settings)}
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


def _looks_of(photo: Path, settings: Settings) -> list[float]:
    """Its embedding; models are loaded here alone, as a search by id needs none."""
    from imagewire.cli.outcome import CommandError
    from imagewire.one_picture import UnusablePictureError, embedding_of

    try:
        # It is the user's own, so there is nothing to contain.
        return embedding_of(photo, settings, "thread")[0].vector
    except UnusablePictureError as error:
        raise CommandError(str(error)) from error


def _print_table(found: list[Similar]) -> None:
    """Columns that fit the terminal, the longest values cut; `--json` has everything."""
    from rich.table import Table
    from rich.text import Text

    from imagewire.cli.terminal import console, printable

    rows = [
        [
            f"{similar.score:.3f}",
            *(
                printable(str(value or ""))
                for value in (
                    similar.image_id,
                    similar.payload.get("feed"),
                    similar.payload.get("verdict"),
                    ", ".join(similar.payload.get("labels") or []),
                    similar.payload.get("uri"),
                )
            ),
        ]
        for similar in found
    ]
    headings = ["score", "image", "feed", "verdict", "labels", "uri"]
    needed = [
        max(len(heading), *(len(row[column]) for row in rows))
        for column, heading in enumerate(headings)
    ]
    score, image, feed, verdict, labels, uri = needed
    feed = min(feed, 12)
    left = console.width - score - feed - verdict - 5  # a space between columns
    image = min(image, max(left // 2, 12))
    labels = min(labels, max((left - image) // 2, 6))
    uri = min(uri, max(left - image - labels, 3))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading, width in zip(headings, (score, image, feed, verdict, labels, uri), strict=True):
        # An id is copied, so it is folded; of the others the beginning is enough.
        overflow: Literal["fold", "ellipsis"] = "fold" if heading == "image" else "ellipsis"
        table.add_column(heading, width=width, no_wrap=heading != "image", overflow=overflow)
    for row in rows:
        # The end of an address says more than its beginning.
        if len(row[-1]) > uri:
            row[-1] = f"…{row[-1][1 - uri :]}"
        table.add_row(*map(Text, row))
    console.print(table)
