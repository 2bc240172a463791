"""`imagewire forget`: erases images for good."""

from __future__ import annotations

import asyncio
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from imagewire.forgetting import ForgetReport


def forget(
    *,
    id: tuple[str, ...] = (),
    content: tuple[str, ...] = (),
    feed: tuple[str, ...] = (),
    lift: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative="")] = False,
    json: bool = False,
    data: Annotated[Path | None, Parameter(name=["--data", "-d"])] = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
) -> int:
    """Erase images from ClickHouse, Qdrant, workers' memory and the queue of reviewers.

    What is erased does not come back: a replay or a repeated delivery is dropped. Kafka keeps its
    records until they expire, which is said at the end. If a store is away the rest is done all
    the same, the exit code is 1, and the command can be run again.

    Args:
        id: Erase this image. May be given several times, as the next two.
        content: Erase every image with these bytes, by their SHA-256; and whatever comes with them.
        feed: Erase every image of this feed up to now; later ones are taken.
        lift: Take tombstones back instead: what they cover is taken again from now on. What was
            erased stays erased. Ids that went with a content have tombstones of their own.
        dry_run: Count what would be erased, and erase nothing.
        yes: Do not ask before a whole feed is erased.
        json: Print one JSON object.
        data: Data directory of the running stack.
        config: Settings file that names the Kafka, ClickHouse and Qdrant to use.
    """
    from imagewire.cli.outcome import EXIT_FAILED, UsageError
    from imagewire.cli.terminal import error_console, print_json, print_note
    from imagewire.connection import find_connection
    from imagewire.forgetting import for_writing
    from imagewire.forgetting import forget as erase
    from imagewire.forgetting import lift as take_back
    from imagewire.reachability import reaching
    from sinks.clickhouse.erasing import Selection

    if not (id or content or feed):
        raise UsageError("name what is to be erased: --id ID, --content SHA256 or --feed FEED")
    for each in content:
        if not re.fullmatch(r"[0-9a-f]{64}", each):
            raise UsageError(
                f"--content '{each[:80]}' is no content id: the SHA-256 of the bytes, 64 "
                "lower-case hexadecimal digits"
            )
    connection = find_connection(data, config)
    if lift:
        if dry_run:
            raise UsageError("--lift erases nothing, so there is no --dry-run of it")
        with reaching(connection, "Kafka"):
            count = asyncio.run(take_back(connection.settings, Selection(id, content, feed)))
        if json:
            print_json({"lifted": count})
        else:
            print_note(f"took back {count} tombstones; what was erased stays erased")
        return 0
    if feed and not dry_run and not yes:
        if not error_console.is_terminal:
            raise UsageError("erasing whole feeds asks first; add --yes where nobody can answer")
        named = ", ".join(feed)
        answer = error_console.input(f"erase everything of {named} up to now? Type yes: ")
        if answer.strip() != "yes":
            print_note("nothing was erased")
            return EXIT_FAILED
    with reaching(connection, "Kafka"):
        report = asyncio.run(
            erase(
                for_writing(connection),
                Selection(id, content, feed),
                dry_run=dry_run,
                report_step=(lambda text: None) if json else print_note,
            )
        )
    if json:
        print_json(
            {
                "dry_run": dry_run,
                "images": report.images,
                "image_ids": report.image_ids,
                "erased": [asdict(each) for each in report.erased],
                "kept_until_expiry_ms": report.kept,
                "complete": not report.failed,
            }
        )
    else:
        _show(report, dry_run=dry_run)
    return EXIT_FAILED if report.failed else 0


def _show(report: ForgetReport, *, dry_run: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from imagewire.cli.terminal import console, print_error, print_note, printable

    table = Table()
    for heading in ("store", "place", "would be erased" if dry_run else "erased"):
        table.add_column(heading)
    for each in report.erased:
        what = str(each.count) if each.error is None else "not known"
        if each.store == "kafka" and each.error is None:
            what = f"{each.count} tombstones written"
        table.add_row(*(Text(printable(text)) for text in (each.store, each.place, what)))
    console.print(table)
    for each in report.erased:
        if each.error is not None:
            print_error(f"{each.error}. What is there stays; run it again")
    spans: dict[str, list[str]] = {}
    for topic, milliseconds in report.kept.items():
        spans.setdefault(_span(milliseconds), []).append(topic)
    print_note(
        "Kafka cannot erase single records: those about these images stay on their topics until "
        "they expire, and workers drop them:"
    )
    for span, topics in spans.items():
        print_note(f"  {span}: {', '.join(topics)}")


def _span(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "for as long as the broker keeps them (it does not say)"
    if milliseconds < 0:
        return "for ever (retention.ms = -1: lower it)"
    return f"for up to {milliseconds / 86_400_000:g} days"
