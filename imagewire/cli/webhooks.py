"""`imagewire webhooks`: verdicts that receivers were not told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
from cyclopts import Parameter

if TYPE_CHECKING:
    from imagewire.webhooks_again import ToldAgain

webhooks = cyclopts.App(
    name="webhooks",
    help="Tell receivers again what they were not told: resend.",
    default_parameter=cyclopts.Parameter(negative=()),
)


@webhooks.command
def resend(
    *names: str,
    since: str | None = None,
    id: tuple[str, ...] = (),
    feed: tuple[str, ...] = (),
    reason: tuple[str, ...] = (),
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    json: bool = False,
    data: Annotated[Path | None, Parameter(name=["--data", "-d"])] = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
) -> int:
    """Post the messages that were given up, once each.

    They keep their ids, so a receiver discards what it had all the same; whatever was posted with
    success may be posted again by the next run. Of images that were erased nobody is told.

    Args:
        names: Only for these receivers, as [[webhooks]] calls them.
        since: Only what was given up since: 30m, 2h, 7d (ago) or 2026-01-31T12:00:00Z.
        id: Only about these images.
        feed: Only about images of these feeds.
        reason: Only what was given up for this reason: gave-up or gone.
        dry_run: Show what would be posted, and post nothing.
        json: Print one JSON object for each message.
        data: Data directory of the running stack.
        config: Settings file that names the webhooks, and Kafka where no stack runs.
    """
    from imagewire.cli.outcome import EXIT_FAILED
    from imagewire.cli.terminal import print_error, print_json, print_note, printable
    from imagewire.connection import find_connection
    from imagewire.dead_letters import LetterFilter
    from imagewire.reachability import reaching
    from imagewire.replaying import since_ms
    from imagewire.settings import ConfigurationError
    from imagewire.webhooks_again import tell_again
    from imagewire.webhooks_settings import WebhookSecretError

    try:
        earliest = None if since is None else since_ms(since)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f"--since: {error}") from error
    connection = find_connection(data, config)
    wanted = LetterFilter(reasons=reason, image_ids=frozenset(id), feeds=feed, since_ms=earliest)

    def show(told: ToldAgain) -> None:
        if json:
            print_json(_fields(told), lines=True)
        elif told.outcome in (None, "delivered"):
            verb = "would be told" if told.outcome is None else "was told"
            print_note(printable(f"webhook '{told.webhook}' {verb} of '{told.letter.image_id}'"))
        else:
            where = f"webhook '{told.webhook}', image '{told.letter.image_id}'"
            print_error(printable(f"{where}: {told.outcome}: {told.detail}"))

    try:
        with reaching(connection, "Kafka"):
            done = asyncio.run(
                tell_again(connection.settings, wanted, names, dry_run=dry_run, on_done=show)
            )
    except WebhookSecretError as error:
        raise ConfigurationError(str(error)) from error
    if not json:
        told = sum(each.outcome == "delivered" for each in done)
        print_note(f"{len(done)} messages were given up; {told} were told now")
    failed = [each for each in done if each.outcome in ("failed", "unknown")]
    return EXIT_FAILED if failed else 0


def _fields(told: ToldAgain) -> dict[str, Any]:
    letter = told.letter
    return {
        "webhook": told.webhook,
        "image_id": letter.image_id,
        "feed": letter.feed,
        "reason": letter.reason,
        "given_up": letter.detail,
        "failed_at_ms": letter.failed_at_ms,
        "outcome": told.outcome or "would be told",
        "detail": told.detail,
    }
