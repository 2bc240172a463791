"""`imagewire ban import` and `export`: banlists in files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from imagewire.cli.ban_topic import Config, Data, require_list, with_bans

if TYPE_CHECKING:
    from imagewire.ban_files import Format
    from imagewire.bans import Bans
    from imagewire.settings import Settings
    from operators.ban_records import BanRecord, HashKind

_MOST_COMPLAINTS = 10


def import_(
    file: Path,
    /,
    *,
    list: Annotated[str | None, Parameter(name=["--list", "-l"])] = None,
    kind: Literal["pdq", "sha256"] | None = None,
    skip: bool = False,
    data: Data = None,
    config: Config = None,
) -> int:
    """Put the hashes of a file on a list: CSV, JSON or JSON Lines.

    Understood are the columns of python-threatexchange and ThreatExchange (signal_type and
    signal_str; type and indicator), hasher-matcher-actioner's signals ({"pdq": "…"}), and what
    `imagewire ban export` writes. The whole file is checked before anything is banned. Importing a
    file again changes nothing.

    Args:
        file: FILE.csv, FILE.json or FILE.jsonl.
        list: The list to put all of them on; else each row names its own.
        kind: Of hashes in rows that do not say; PDQ and SHA-256 look alike.
        skip: Pass over rows that cannot be used, such as other kinds of hash, instead of stopping.
        data: Data directory of the running stack.
        config: Settings file that names the Kafka to use.
    """
    from rich.progress import Progress

    from imagewire.ban_files import BanFileError
    from imagewire.bans import added
    from imagewire.cli.outcome import CommandError
    from imagewire.cli.terminal import error_console, print_error, print_note

    try:
        seen = _look_over(file, list, kind)
    except BanFileError as error:
        raise CommandError(str(error)) from error
    for message in seen.complaints:
        print_error(message)
    if seen.refused and not skip:
        raise CommandError(
            f"{seen.refused} rows of {file} cannot be used, so nothing was imported; mend them, or "
            "pass over them with --skip"
        )

    async def write(topic: Bans, settings: Settings) -> None:
        known = await topic.lists()
        if unknown := sorted(seen.lists - known.keys() - seen.made):
            raise CommandError(
                f"there is no list '{unknown[0]}'; make it with: imagewire ban set {unknown[0]}"
            )
        with Progress(
            console=error_console, transient=True, disable=not error_console.is_terminal
        ) as progress:
            task = progress.add_task("importing", total=seen.records)
            written = await topic.write(
                added(_usable(file, list, kind)),
                lambda count: progress.advance(task, count),
            )
        passed_over = f", passed over {seen.refused} rows" if seen.refused else ""
        print_note(f"imported {written} records from {file}{passed_over}")

    with_bans(data, config, write)
    return 0


def export(
    file: Path | None = None,
    /,
    *,
    list: Annotated[str | None, Parameter(name=["--list", "-l"])] = None,
    format: Literal["csv", "json", "jsonl"] | None = None,
    data: Data = None,
    config: Config = None,
) -> None:
    """Write banlists to a file, or to standard output.

    CSV has hashes only; JSON has the lists' settings and exemplars as well, so that importing it
    elsewhere makes the same lists.

    Args:
        file: FILE.csv, FILE.json or FILE.jsonl; standard output when not given.
        list: Only this list.
        format: By the file's name when not given; json for standard output.
        data: Data directory of the running stack.
        config: Settings file that names the Kafka to use.
    """
    from imagewire.ban_files import BanFileError, BanFileWriter, format_of
    from imagewire.cli.outcome import CommandError
    from imagewire.cli.terminal import print_note

    try:
        chosen: Format = format or ("json" if file is None else format_of(file))
    except BanFileError as error:
        raise CommandError(str(error)) from error

    async def write(topic: Bans, settings: Settings) -> None:
        wanted = await topic.standing(lambda key: list in (None, key.list), banlist=list)
        if list is not None and not wanted:
            await require_list(topic, list)
        try:
            stream = sys.stdout if file is None else file.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise CommandError(f"{file} cannot be written: {error.strerror}") from error
        try:
            writer = BanFileWriter(stream, chosen)
            done = left_out = 0
            async for record in topic.records(wanted):
                if writer.write(record):
                    done += 1
                else:
                    left_out += 1
            writer.close()
            stream.flush()
        finally:
            if file is not None:
                stream.close()
        omitted = f"; {left_out} lists and exemplars have no place in CSV" if left_out else ""
        print_note(f"exported {done} records{omitted}")

    with_bans(data, config, write)


@dataclass(slots=True)
class _LookedOver:
    """What a file to import holds: usable records, rows without use and the first complaints about
    them, the lists that are named, and those that the file itself makes."""

    records: int = 0
    refused: int = 0
    complaints: list[str] = field(default_factory=list)
    lists: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)


def _look_over(file: Path, banlist: str | None, kind: HashKind | None) -> _LookedOver:
    from imagewire.ban_files import BanFileError, read_rows
    from operators.ban_records import Banlist

    seen = _LookedOver()
    for row in read_rows(file, banlist, kind):
        if isinstance(row, BanFileError):
            seen.refused += 1
            if len(seen.complaints) < _MOST_COMPLAINTS:
                seen.complaints.append(str(row))
        else:
            seen.records += 1
            if isinstance(row, Banlist):
                seen.made.add(row.name)
            else:
                seen.lists.add(row.list)
    return seen


def _usable(file: Path, banlist: str | None, kind: HashKind | None) -> Iterator[BanRecord]:
    from imagewire.ban_files import BanFileError, read_rows

    for row in read_rows(file, banlist, kind):
        if not isinstance(row, BanFileError):
            yield row
