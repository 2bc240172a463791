"""`imagewire review`: the queue of images that wait for people, on a terminal."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.table import Table

    from imagewire.connection import Connection
    from sinks.clickhouse.reader import ClickHouseReader

review = cyclopts.App(
    name="review",
    help="Decide over images that wait for people: next, decide, undo, stats.",
    default_parameter=cyclopts.Parameter(negative=()),
)

Data = Annotated[Path | None, Parameter(name=["--data", "-d"])]
Config = Annotated[Path | None, Parameter(name=["--config", "-c"])]
Reviewer = Annotated[str | None, Parameter(name=["--reviewer", "-r"])]


@review.command(name="next")
def next_(
    *,
    reviewer: Reviewer = None,
    feed: tuple[str, ...] = (),
    why: Literal["policy", "audit"] | None = None,
    json: bool = False,
    data: Data = None,
    config: Config = None,
) -> int:
    """Show the image that has waited longest, and keep it from other reviewers for a while.

    What is shown: its address, what was found in it, and the rules that fired. The lease lasts
    reviews.lease seconds. Exit code 1 when nothing waits.

    Args:
        reviewer: Who reviews; the name of the user when not given.
        feed: Only images of these feeds.
        why: Only those that the policy asks people about, or only those drawn for an audit.
        json: Print one JSON object.
        data: Data directory of the running stack.
        config: Settings file that names the Kafka and ClickHouse to use.
    """
    from imagewire.cli.outcome import EXIT_FAILED
    from imagewire.cli.terminal import print_json, print_note
    from imagewire.reviews_queue import next_image

    connection = _connection(data, config)
    with _stores(connection) as reader:
        image = asyncio.run(
            next_image(connection.settings, reader, _name(reviewer), feed, why or "")
        )
    if image is None:
        if json:
            print_json(None)
        else:
            print_note("nothing waits for a decision")
        return EXIT_FAILED
    if json:
        print_json(_plain(image))
    else:
        _show(image)
    return 0


@review.command
def decide(
    image_id: str,
    decision: Literal["allow", "block"],
    /,
    *,
    reviewer: Reviewer = None,
    reason: str = "",
    label: tuple[str, ...] = (),
    json: bool = False,
    data: Data = None,
    config: Config = None,
) -> None:
    """Decide over an image. It holds for the image, and for others with the same bytes.

    Args:
        image_id: The image.
        decision: allow or block.
        reviewer: Who decides; the name of the user when not given.
        reason: Why, in a sentence.
        label: What is in the picture, for statistics and calibration. May be given several times.
        json: Print the decision as JSON.
        data: Data directory of the running stack.
        config: Settings file that names the Kafka and ClickHouse to use.
    """
    import msgspec

    from imagewire.cli.outcome import CommandError, UsageError
    from imagewire.cli.terminal import print_json, print_note
    from imagewire.reviews_queue import NothingToDecideError
    from imagewire.reviews_queue import decide as publish

    connection = _connection(data, config)
    try:
        with _stores(connection) as reader:
            who = _name(reviewer)
            made = asyncio.run(
                publish(connection.settings, reader, who, image_id, decision, reason, label)
            )
    except NothingToDecideError as error:
        raise CommandError(str(error)) from error
    except msgspec.ValidationError as error:
        raise UsageError(f"this is no decision: {error}") from error
    if json:
        print_json(msgspec.to_builtins(made))
    else:
        print_note(f"{made.image_id}: {made.decision}, decided by {made.reviewer}")


@review.command
def undo(
    image_id: str | None = None,
    /,
    *,
    reviewer: Reviewer = None,
    json: bool = False,
    data: Data = None,
    config: Config = None,
) -> None:
    """Take your last decision back: the policy's verdict stands again, and the image waits anew.

    The decision stays in the history.

    Args:
        image_id: Take back the decision on this image instead.
        reviewer: Whose decision; the name of the user when not given.
        json: Print the withdrawal as JSON.
        data: Data directory of the running stack.
        config: Settings file that names the Kafka and ClickHouse to use.
    """
    import msgspec

    from imagewire.cli.outcome import CommandError
    from imagewire.cli.terminal import print_json, print_note
    from imagewire.reviews_queue import NothingToDecideError
    from imagewire.reviews_queue import undo as withdraw

    connection = _connection(data, config)
    try:
        with _stores(connection) as reader:
            withdrawal, last = asyncio.run(
                withdraw(connection.settings, reader, _name(reviewer), image_id)
            )
    except NothingToDecideError as error:
        raise CommandError(str(error)) from error
    if json:
        print_json(msgspec.to_builtins(withdrawal))
    else:
        print_note(
            f"{withdrawal.image_id}: the decision {last['decision']} is taken back; the policy's "
            "verdict stands again"
        )


@review.command
def stats(*, json: bool = False, data: Data = None, config: Config = None) -> None:
    """Show the queue, who decided how much, and how often people and rules agree.

    Args:
        json: Print one JSON object instead of tables.
        data: Data directory of the running stack.
        config: Settings file that names the ClickHouse to use.
    """
    from imagewire.cli.terminal import console, print_json
    from imagewire.reachability import reaching
    from imagewire.reviews_queue import statistics
    from sinks.clickhouse.reader import ClickHouseReader

    connection = _connection(data, config)
    with (
        reaching(connection, "ClickHouse"),
        ClickHouseReader(connection.settings.clickhouse) as reader,
    ):
        found = statistics(reader)
    if json:
        print_json({name: [_plain(row) for row in rows] for name, rows in found.items()})
        return
    for name, rows in found.items():
        if rows:
            console.print(_table(_TITLES[name], rows))


_TITLES = {
    "queue": "waiting for people",
    "reviewers": "reviewers",
    "rule_agreement": "what people made of the verdicts they saw (no estimate of a rule's quality)",
    "rule_precision": "how often a rule is right: estimates from audit samples only, 95 % interval",
    "reviewer_agreement": "how often reviewers agree",
}


def _connection(data: Path | None, config: Path | None) -> Connection:
    from imagewire.cli.outcome import CommandError
    from imagewire.connection import find_connection

    connection = find_connection(data, config)
    if not connection.settings.clickhouse.enabled:
        raise CommandError(
            "the queue of reviewers is kept in ClickHouse, and clickhouse.enabled is false; turn "
            "it on, or read the topic images.review with a program of your own"
        )
    return connection


@contextmanager
def _stores(connection: Connection) -> Iterator[ClickHouseReader]:
    """ClickHouse for reading; if it or Kafka is away, the error says which."""
    from imagewire.reachability import reaching
    from sinks.clickhouse.reader import ClickHouseReader

    with (
        reaching(connection, "Kafka"),
        reaching(connection, "ClickHouse"),
        ClickHouseReader(connection.settings.clickhouse) as reader,
    ):
        yield reader


def _name(reviewer: str | None) -> str:
    from imagewire.cli.outcome import UsageError

    if reviewer is not None:
        return reviewer
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise UsageError("this user has no name; give one with --reviewer NAME") from error


def _show(image: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from imagewire.cli.tables import cell_text
    from imagewire.cli.terminal import console, print_note, printable

    why = "asked for by the policy"
    if image["why"] == "audit":
        why = f"drawn to check: {', '.join(image['audited_rules'])}"
    objects = _pairs(image["objects"])
    facts: dict[str, Any] = {
        "image": image["image_id"],
        "picture": image["uri"] or "(its bytes came on Kafka)",
        "feed": image["feed"],
        "arrived": image["kafka_time"],
        "size": f"{image['width']} × {image['height']} {image['format']}",
        "verdict": f"{image['verdict']} by {image['policy']}; {why}",
        "objects": ", ".join(f"{label} {score:.2f}" for label, score in objects),
        "text": " / ".join(image["texts"]),
        "scores": ", ".join(f"{name} {score:.3f}" for name, score in image["scores"].items()),
        "metadata": image["metadata"] if image["metadata"] != "{}" else "",
    }
    grid = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        if value != "":
            grid.add_row(Text(name, style="bold"), Text(cell_text(value)))
    console.print(grid)
    if image["rules"]:
        rules = Table(title="rules that fired", title_justify="left")
        for heading in ("rule", "action", "explanation"):
            rules.add_column(heading)
        for hit in image["rules"]:
            action = f"{hit['action']} (shadow)" if hit["shadow"] == "yes" else hit["action"]
            rules.add_row(
                *(Text(printable(text)) for text in (hit["rule"], action, hit["explanation"]))
            )
        console.print(rules)
    print_note(
        f"yours until {image['claimed_until']}; decide with: "
        f"imagewire review decide {image['image_id']!r} allow|block"
    )


def _pairs(objects: list[Any]) -> list[tuple[str, float]]:
    """Tuples come from Arrow as records with numbered fields."""
    return [tuple(each.values()) if isinstance(each, dict) else each for each in objects]


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from imagewire.cli.tables import cell_text
    from imagewire.cli.terminal import printable

    table = Table(title=title, title_justify="left")
    for heading in rows[0]:
        table.add_column(printable(heading))
    for row in rows:
        table.add_row(*(Text(cell_text(value)) for value in row.values()))
    return table


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {
        name: value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if isinstance(value, datetime)
        else value
        for name, value in row.items()
    }
    if "objects" in plain:
        plain["objects"] = [
            {"label": label, "score": score} for label, score in _pairs(plain["objects"])
        ]
    return plain
