"""`imagewire replay`: publishes images that failed once more."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.table import Table

    from imagewire.dead_letters import Letter
    from imagewire.replaying import Replayed, ReplayPlan


def replay(
    *,
    stage: tuple[str, ...] = (),
    reason: tuple[str, ...] = (),
    since: str | None = None,
    id: tuple[str, ...] = (),
    feed: tuple[str, ...] = (),
    limit: int | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    json: bool = False,
    data: Annotated[Path | None, Parameter(name=["--data", "-d"])] = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
) -> int:
    """Publish dead letters again: images that failed and have not succeeded since.

    Each goes back to the topic that it came from, with its key, value and headers. What is found
    then takes the place of the failure. Options that are given several times mean any of theirs.

    Args:
        stage: Only those that failed here: parse, fetch, decode, an operator, policy or sink.
        reason: Only those that failed for this reason, such as http-status.
        since: Only those that failed since: 30m, 2h, 7d (ago) or 2026-01-31T12:00:00Z.
        id: Only these images.
        feed: Only these feeds.
        limit: At most so many, the oldest first.
        dry_run: Show what would be published, and publish nothing.
        json: Print one JSON object for each letter instead of a table.
        data: Data directory of the running stack.
        config: Settings file that names the Kafka and ClickHouse to use.
    """
    from imagewire.cli.outcome import EXIT_FAILED, CommandError
    from imagewire.cli.terminal import console, print_json, print_note
    from imagewire.connection import find_connection
    from imagewire.dead_letters import LetterFilter
    from imagewire.reachability import reaching
    from imagewire.replaying import since_ms
    from imagewire.settings import ConfigurationError

    if limit is not None and limit < 1:
        raise CommandError(f"--limit {limit} replays nothing; give a number from 1")
    try:
        wanted = LetterFilter(
            stage, reason, frozenset(id), feed, None if since is None else since_ms(since)
        )
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f"--since: {error}") from error
    connection = find_connection(data, config)

    done: list[Replayed] = []

    def tell(outcome: Replayed) -> None:
        done.append(outcome)
        if json:
            print_json(_fields(outcome, dry_run=False), lines=True)

    on_done = None if dry_run else tell
    with reaching(connection, "Kafka"):
        plan = asyncio.run(_replay(connection.settings, wanted, limit, on_done, quiet=json))
    if dry_run:
        from imagewire.replaying import Replayed

        planned = [Replayed(letter) for letter in plan.letters] + list(plan.refused)
        for outcome in planned if json else ():
            print_json(_fields(outcome, dry_run=True), lines=True)
        if planned and not json:
            console.print(_table(planned))
    refused = [*plan.refused, *(outcome for outcome in done if outcome.refused is not None)]
    if not json:
        _explain_refusals([] if dry_run else refused)
        replayed = len(plan.letters) if dry_run else len(done) - len(refused) + len(plan.refused)
        print_note(_summary(plan, replayed, len(refused), dry_run=dry_run))
    elif not dry_run:
        for outcome in plan.refused:
            print_json(_fields(outcome, dry_run=False), lines=True)
    return EXIT_FAILED if refused else 0


async def _replay(
    settings: Any, wanted: Any, limit: int | None, on_done: Any, *, quiet: bool
) -> ReplayPlan:
    from aiokafka import AIOKafkaProducer
    from aiokafka.errors import KafkaError
    from rich.progress import Progress

    from imagewire.cli.terminal import error_console, print_note
    from imagewire.dead_letters import dead_letters
    from imagewire.replaying import Replay, made_good_in, plan_replay
    from sinks.clickhouse.reader import ClickHouseReader, QueryError
    from sinks.sink import TransientSinkError

    def made_good(letters: Any) -> set[Letter]:
        if not settings.clickhouse.enabled or not letters:
            return set()
        try:
            with ClickHouseReader(settings.clickhouse) as reader:
                return made_good_in(reader, letters)
        except QueryError as error:
            print_note(
                f"which of them have succeeded since is not known: {error}. All are replayed, "
                "which overwrites and doubles nothing"
            )
            return set()

    kafka = settings.kafka
    with Progress(
        console=error_console, transient=True, disable=quiet or not error_console.is_terminal
    ) as progress:
        async with dead_letters(kafka) as reading:
            task = progress.add_task("reading dead letters", total=None)
            letters = await reading.scan(lambda count: progress.advance(task, count))
            progress.remove_task(task)
            if reading.strange:
                print_note(
                    f"{reading.strange} records on {kafka.topics.failed} are no dead letters of "
                    "Imagewire's and are passed over"
                )
            plan = await asyncio.to_thread(
                plan_replay,
                letters,
                wanted,
                made_good=made_good,
                topics=(kafka.topics.images, kafka.topics.bulk),
                max_attempts=settings.stream.max_attempts,
                limit=limit,
            )
            if on_done is None or not plan.letters:
                return plan
            task = progress.add_task("replaying", total=len(plan.letters))

            def one_done(outcome: Replayed) -> None:
                progress.advance(task)
                on_done(outcome)

            producer = AIOKafkaProducer(**kafka.producer_options())
            try:
                await producer.start()
                await Replay(producer, kafka, reading).publish(plan.letters, one_done)
            except (KafkaError, OSError) as error:
                raise TransientSinkError(
                    f"the broker at {kafka.bootstrap_servers} does not take records: {error!r}"
                ) from error
            finally:
                await producer.stop()
    return plan


def _fields(outcome: Replayed, *, dry_run: bool) -> dict[str, Any]:
    letter = outcome.letter
    verb = "would be replayed" if dry_run else "replayed"
    fields: dict[str, Any] = {
        "image_id": letter.image_id,
        "feed": letter.feed,
        "stage": letter.stage,
        "reason": letter.reason,
        "detail": letter.detail,
        "attempt": letter.attempt,
        "failed_at": _time(letter),
        "source": dict(zip(("topic", "partition", "offset"), letter.source, strict=True)),
        "outcome": verb if outcome.refused is None else "refused",
    }
    if outcome.refused is not None:
        fields["refused"] = outcome.refused
    elif outcome.topic is not None:
        fields["published"] = {
            "topic": outcome.topic,
            "partition": outcome.partition,
            "offset": outcome.offset,
        }
    return fields


def _table(planned: list[Replayed]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from imagewire.cli.tables import MOST_ROWS
    from imagewire.cli.terminal import printable

    table = Table()
    for heading in ("failed at", "image", "feed", "stage", "reason", "attempt", "would be"):
        # Stages and reasons are short codes that people copy into filters.
        table.add_column(heading, overflow="fold", no_wrap=heading in ("stage", "reason"))
    for outcome in planned[:MOST_ROWS]:
        letter = outcome.letter
        fate = "replayed" if outcome.refused is None else f"refused: {outcome.refused}"
        table.add_row(
            *(
                Text(printable(str(value)))
                for value in (
                    _time(letter),
                    *(letter.image_id, letter.feed, letter.stage, letter.reason),
                    *(letter.attempt, fate),
                )
            )
        )
    return table


def _explain_refusals(refused: list[Replayed]) -> None:
    from imagewire.cli.tables import MOST_ROWS
    from imagewire.cli.terminal import print_error, printable

    for outcome in refused[:MOST_ROWS]:
        print_error(printable(f"image {outcome.letter.image_id!r}: {outcome.refused}"))
    if len(refused) > MOST_ROWS:
        print_error(f"and {len(refused) - MOST_ROWS} more; --json lists them all")


def _summary(plan: ReplayPlan, replayed: int, refused: int, *, dry_run: bool) -> str:
    letters = "1 dead letter" if replayed == 1 else f"{replayed} dead letters"
    parts = [f"{'would replay' if dry_run else 'replayed'} {letters}"]
    if refused:
        parts.append(f"{refused} refused")
    if plan.made_good:
        parts.append(f"{plan.made_good} have succeeded since")
    return "; ".join(parts)


def _time(letter: Letter) -> str:
    moment = datetime.fromtimestamp(letter.failed_at_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
