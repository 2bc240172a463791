"""`imagewire ban`: the lists of banned images."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

from imagewire.cli.ban_exchange import export, import_
from imagewire.cli.ban_topic import Config, Data, require_list, with_bans

if TYPE_CHECKING:
    from imagewire.bans import Bans
    from imagewire.settings import Settings
    from operators.ban_records import Banlist, BanRecord

ban = cyclopts.App(
    name="ban",
    help="Ban known images: set, add, remove, import, export, list, lists.",
    default_parameter=cyclopts.Parameter(negative=()),
)

ban.command(import_, name="import")
ban.command(export)

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

    with_bans(data, config, change)


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
        await require_list(topic, list)
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

    with_bans(data, config, write)


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
            ),
            banlist=list,
        )
        if whole_list and not keys:
            await require_list(topic, list)
        # Entries first: were it cut short, the list could still be seen and taken away.
        order = sorted(keys, key=lambda key: key.kind == "list")
        count = await topic.write((key, None) for key in order)
        missing.update(wanted - {key.hash for key in keys})
        what = f"list {list} with {count - 1} entries" if whole_list else f"{count} entries"
        print_note(f"took {what} away")

    with_bans(data, config, take)
    for digest in sorted(missing):
        print_error(f"{digest} is not on {list}")
    return EXIT_FAILED if missing else 0


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
        keys = await topic.standing(
            lambda key: key.list == name and key.kind != "list", banlist=name
        )
        if not keys:
            await require_list(topic, name)
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

    with_bans(data, config, show)


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

    with_bans(data, config, show)


_KINDS = ("pdq", "sha256", "exemplar")


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
