"""`imagewire ban`: the lists of banned images."""

from __future__ import annotations

import asyncio
import difflib
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

if TYPE_CHECKING:
    from imagewire.ban_files import Format
    from imagewire.bans import Bans
    from imagewire.settings import Settings
    from operators.ban_records import Banlist, BanRecord, HashKind

ban = cyclopts.App(
    name="ban",
    help="Ban known images: set, add, remove, import, export, list, lists.",
    default_parameter=cyclopts.Parameter(negative=()),
)

Data = Annotated[Path | None, Parameter(name=["--data", "-d"])]
Config = Annotated[Path | None, Parameter(name=["--config", "-c"])]
ListOption = Annotated[str, Parameter(name=["--list", "-l"])]


@ban.command(name="set")
def set_(
    name: str,
    /,
    *,
    owner: str | None = None,
    reason: str | None = None,
    action: Literal["allow", "review", "block"] | None = None,
    enabled_ratio: float | None = None,
    max_distance: int | None = None,
    min_quality: int | None = None,
    max_embedding_distance: float | None = None,
    data: Data = None,
    config: Config = None,
) -> None:
    """Make a list, or change its settings; what is not given stays as it is.

    Args:
        name: The list: up to 64 letters, digits, '_', '-' and '.'.
        owner: Who answers for it.
        reason: Why its images are listed; stands in findings.
        action: What it asks of the policy: block (of a new list), review or allow.
        enabled_ratio: Share of images, 0 to 1, that the list is consulted for.
        max_distance: Bits of 256 in which PDQ hashes may differ, 0 to 31.
        min_quality: Least PDQ quality, 0 to 100, of images that are compared.
        max_embedding_distance: Largest cosine distance to an exemplar, 0 to 1.
        data: Data directory of the running stack.
        config: Settings file that names the Kafka to use.
    """
    import msgspec

    from imagewire.bans import now
    from imagewire.cli.outcome import UsageError
    from imagewire.cli.terminal import print_note
    from operators.ban_records import Banlist, key_of

    given = {
        "owner": owner,
        "reason": reason,
        "action": action,
        "enabled_ratio": enabled_ratio,
        "max_distance": max_distance,
        "min_quality": min_quality,
        "max_embedding_distance": max_embedding_distance,
    }

    async def change(topic: Bans, settings: Settings) -> None:
        old = (await topic.lists()).get(name)
        values: dict[str, Any] = {"name": name, "created_at": now()}
        if old is not None:
            values = msgspec.structs.asdict(old)
        values |= {key: value for key, value in given.items() if value is not None}
        try:
            banlist = msgspec.convert(values, Banlist)
        except msgspec.ValidationError as error:
            raise UsageError(f"the list cannot be so: {error}") from error
        await topic.write([(key_of(banlist), banlist)])
        print_note(f"{'made' if old is None else 'changed'} list {name}: {_in_words(banlist)}")

    _with_bans(data, config, change)


@ban.command
def add(
    *pictures: Path,
    list: ListOption,
    pdq: tuple[str, ...] = (),
    sha256: tuple[str, ...] = (),
    exemplar: bool = False,
    comment: str = "",
    data: Data = None,
    config: Config = None,
) -> None:
    """Ban images: by their files, or by hashes that somebody has.

    A file is banned by its SHA-256 and its picture's PDQ hash; with --exemplar by what the embedder
    makes of it, so that whatever resembles it is found. It is decoded like any image of a stranger.
    Workers know within a second.

    Args:
        pictures: Image files.
        list: The list to put them on; `imagewire ban set` makes one.
        pdq: PDQ hash, 64 hexadecimal digits.
        sha256: SHA-256 of a file, 64 hexadecimal digits.
        exemplar: Ban what resembles the pictures.
        comment: What people should know of these entries.
        data: Data directory of the running stack.
        config: Settings file that names the Kafka to use.
    """
    from imagewire.bans import added
    from imagewire.cli.outcome import UsageError
    from imagewire.cli.terminal import print_note
    from operators.ban_records import BannedExemplar, BannedHash

    if not (pictures or pdq or sha256):
        raise UsageError("name a picture, or a hash with --pdq or --sha256")
    if exemplar and (pdq or sha256):
        raise UsageError("an exemplar is a picture; a hash cannot be one")

    async def write(topic: Bans, settings: Settings) -> None:
        await _require_list(topic, list)
        records = _hashes(list, pdq, sha256, comment)
        for picture in pictures:
            records += await asyncio.to_thread(
                _of_picture, picture, settings, list, comment, exemplar
            )
        await topic.write(added(records))
        for record in records:
            if isinstance(record, BannedHash | BannedExemplar):
                kind = record.kind if isinstance(record, BannedHash) else "exemplar"
                print_note(f"banned {kind} {record.hash} on {list}")

    _with_bans(data, config, write)


@ban.command
def remove(
    *hashes: str,
    list: ListOption,
    kind: Literal["pdq", "sha256", "exemplar"] | None = None,
    whole_list: bool = False,
    data: Data = None,
    config: Config = None,
) -> int:
    """Take bans back: entries by their hash, or a whole list.

    Args:
        hashes: As `imagewire ban list` shows them.
        list: The list that they are on.
        kind: Only entries of this kind; a hash may stand on a list as several.
        whole_list: Take the list away, with all that is on it.
        data: Data directory of the running stack.
        config: Settings file that names the Kafka to use.
    """
    from imagewire.cli.outcome import EXIT_FAILED, UsageError
    from imagewire.cli.terminal import print_error, print_note

    if whole_list == bool(hashes):
        raise UsageError("name the hashes to take away, or --whole-list")
    wanted = {digest.strip().lower() for digest in hashes}
    missing: set[str] = set()

    async def take(topic: Bans, settings: Settings) -> None:
        keys = await topic.standing(
            lambda key: (
                key.list == list
                and (whole_list or (key.hash in wanted and kind in (None, key.kind)))
            )
        )
        if whole_list and not keys:
            await _require_list(topic, list)
        # Entries first: were it cut short, the list could still be seen and taken away.
        order = sorted(keys, key=lambda key: key.kind == "list")
        count = await topic.write((key, None) for key in order)
        missing.update(wanted - {key.hash for key in keys})
        what = f"list {list} with {count - 1} entries" if whole_list else f"{count} entries"
        print_note(f"took {what} away")

    _with_bans(data, config, take)
    for digest in sorted(missing):
        print_error(f"{digest} is not on {list}")
    return EXIT_FAILED if missing else 0


@ban.command(name="import")
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

    _with_bans(data, config, write)
    return 0


@ban.command
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
        wanted = await topic.standing(lambda key: list in (None, key.list))
        if list is not None and not wanted:
            await _require_list(topic, list)
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

    _with_bans(data, config, write)


@ban.command(name="list")
def list_(
    name: str,
    /,
    *,
    limit: int = 50,
    json: bool = False,
    data: Data = None,
    config: Config = None,
) -> None:
    """Show what is on a list, the newest last.

    Args:
        name: The list.
        limit: At most so many entries; 0 for all.
        json: Print one JSON object for each entry.
        data: Data directory of the running stack.
        config: Settings file that names the Kafka to use.
    """
    from rich.table import Table
    from rich.text import Text

    from imagewire.cli.terminal import console, print_json, print_note, printable
    from operators.ban_records import BannedExemplar, BannedHash

    async def show(topic: Bans, settings: Settings) -> None:
        keys = await topic.standing(lambda key: key.list == name and key.kind != "list")
        if not keys:
            await _require_list(topic, name)
        newest = dict(tuple(keys.items())[-limit:] if limit > 0 else keys)
        table = Table(title=name, title_justify="left")
        for heading in ("kind", "hash", "added at", "comment"):
            table.add_column(heading, overflow="fold" if heading == "comment" else "ignore")
        async for record in topic.records(newest):
            if json:
                print_json(record, lines=True)
            elif isinstance(record, BannedHash | BannedExemplar):
                kind = record.kind if isinstance(record, BannedHash) else "exemplar"
                cells = (kind, record.hash, record.added_at, record.comment)
                table.add_row(*(Text(printable(cell)) for cell in cells))
        if not json:
            console.print(table)
            print_note(f"{len(newest)} of {len(keys)} entries")

    _with_bans(data, config, show)


@ban.command
def lists(*, json: bool = False, data: Data = None, config: Config = None) -> None:
    """Show the lists: whose they are, what they ask for, and how many entries they have.

    Args:
        json: Print one JSON object for each list.
        data: Data directory of the running stack.
        config: Settings file that names the Kafka to use.
    """
    from collections import Counter

    import msgspec
    from rich.table import Table
    from rich.text import Text

    from imagewire.cli.terminal import console, print_json, printable
    from operators.ban_records import Banlist

    async def show(topic: Bans, settings: Settings) -> None:
        counts: Counter[tuple[str, str]] = Counter()
        keys = await topic.standing()
        counts.update((key.list, key.kind) for key in keys)
        own = {key: place for key, place in keys.items() if key.kind == "list"}
        table = Table(title="banlists", title_justify="left")
        for heading in ("list", "owner", "reason", "action", "ratio", "limits"):
            table.add_column(heading)
        for kind in _KINDS:
            table.add_column(kind, justify="right")
        records = [record async for record in topic.records(own) if isinstance(record, Banlist)]
        for record in sorted(records, key=lambda one: one.name):
            found = {kind: counts[record.name, kind] for kind in _KINDS}
            if json:
                print_json(msgspec.structs.asdict(record) | {"entries": found}, lines=True)
                continue
            limits = (
                f"≤ {record.max_distance} bits, quality ≥ {record.min_quality}, "
                f"embedding ≤ {record.max_embedding_distance:g}"
            )
            table.add_row(
                *(Text(printable(cell)) for cell in (record.name, record.owner, record.reason)),
                *(record.action, f"{record.enabled_ratio:g}", limits),
                *(f"{count:,}" for count in found.values()),
            )
        if not json:
            console.print(table)

    _with_bans(data, config, show)


_KINDS = ("pdq", "sha256", "exemplar")
_MOST_COMPLAINTS = 10


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


def _with_bans(
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


async def _require_list(topic: Bans, name: str) -> None:
    from imagewire.cli.outcome import CommandError

    known = await topic.lists()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"make it with: imagewire ban set {name}"
        raise CommandError(f"there is no list '{name}'; {hint}")


def _hashes(
    banlist: str, pdq: Sequence[str], sha256: Sequence[str], comment: str
) -> list[BanRecord]:
    import msgspec

    from imagewire.bans import now
    from imagewire.cli.outcome import UsageError
    from operators.ban_records import BannedHash

    records: list[BanRecord] = []
    for kind, digests in (("pdq", pdq), ("sha256", sha256)):
        for digest in digests:
            values = {
                "list": banlist,
                "kind": kind,
                "hash": digest.strip().lower(),
                "comment": comment,
                "added_at": now(),
            }
            try:
                records.append(msgspec.convert(values, BannedHash))
            except msgspec.ValidationError as error:
                raise UsageError(f"--{kind} {digest}: {error}") from error
    return records


def _of_picture(
    picture: Path, settings: Settings, banlist: str, comment: str, exemplar: bool
) -> list[BanRecord]:
    from imagewire.bans import LEAST_QUALITY, UnusablePictureError, of_picture
    from imagewire.cli.outcome import CommandError
    from imagewire.cli.terminal import print_note

    try:
        records = of_picture(picture, settings, banlist, comment[:500], exemplar=exemplar)
    except UnusablePictureError as error:
        raise CommandError(str(error)) from error
    if not exemplar and len(records) == 1:
        print_note(
            f"{picture} has too little structure for a PDQ hash (quality below {LEAST_QUALITY}); "
            "it is known by its bytes alone"
        )
    return records


def _in_words(banlist: Banlist) -> str:
    return (
        f"{banlist.action}, consulted for {banlist.enabled_ratio:.0%} of images, PDQ within "
        f"{banlist.max_distance} bits at quality {banlist.min_quality} or more, embedding within "
        f"{banlist.max_embedding_distance:g}"
    )
