"""`imagewire publish`: puts images on Kafka."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def publish(
    *names: str,
    feed: str = "default",
    inline: bool = False,
    lane: Literal["live", "bulk"] = "live",
    json: bool = False,
    data: Annotated[Path | None, Parameter(name=["--data", "-d"])] = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
) -> int:
    """Publish images: files, folders, globs or URLs.

    A file below a folder that the running stack may read (imagewire up --files) goes as a
    reference; any other file goes with its bytes. Publishing a file again overwrites what was
    found in it before.

    Args:
        names: Files, folders (their image files, below as well), globs, or https:, s3:, … URLs.
        feed: The source that the images belong to.
        inline: Send the bytes of every file, never a reference.
        lane: Live is served first; bulk fills what live leaves.
        json: Print one JSON object for each image: its name, its id and its place on Kafka.
        data: Data directory of the running stack.
        config: Settings file that names the Kafka to publish to.
    """
    from rich.progress import Progress

    from imagewire.cli.outcome import EXIT_FAILED, CommandError, UsageError
    from imagewire.cli.terminal import error_console, print_error, print_json, print_note
    from imagewire.connection import find_connection
    from imagewire.publishing import (
        NothingToPublishError,
        Publication,
        Published,
        expand,
        image_publisher,
    )
    from imagewire.reachability import reaching
    from operators.frame import Lane

    if not names:
        raise UsageError("name at least one file, folder, glob or URL")
    connection = find_connection(data, config)
    roots = (
        [Path(root) for root in connection.stack.file_roots]
        if connection.stack is not None
        else list(connection.settings.fetch.file_roots)
    )
    try:
        publications = expand(
            names,
            feed,
            inline=inline,
            roots=roots,
            on_skipped=lambda link: print_note(
                f"{link} leads out of the folder and is left out; name it itself to publish it"
            ),
        )
    except NothingToPublishError as error:
        raise CommandError(str(error)) from error
    failures = 0

    async def send_all() -> None:
        with Progress(
            console=error_console, transient=True, disable=json or not error_console.is_terminal
        ) as progress:
            task = progress.add_task("publishing", total=len(publications))

            def done(publication: Publication, outcome: Published | NothingToPublishError) -> None:
                nonlocal failures
                progress.advance(task)
                if isinstance(outcome, NothingToPublishError):
                    failures += 1
                    print_error(str(outcome))
                elif json:
                    name = publication.uri or str(publication.path)
                    print_json({"name": name, **asdict(outcome)}, lines=True)

            async with image_publisher(connection.settings.kafka) as publisher:
                await publisher.publish_all(publications, Lane(lane), done)

    with reaching(connection, "Kafka"):
        asyncio.run(send_all())
    if not json:
        print_note(f"published {len(publications) - failures} images to feed '{feed}' ({lane})")
    return EXIT_FAILED if failures else 0
