"""`imagewire watch`: shows verdicts, findings or dead letters as they come."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter


def watch(
    what: Literal["verdicts", "findings", "review", "failed"] = "verdicts",
    /,
    *,
    from_beginning: bool = False,
    limit: int | None = None,
    feed: str | None = None,
    json: bool = False,
    data: Annotated[Path | None, Parameter(name=["--data", "-d"])] = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
) -> None:
    """Show verdicts, findings or dead letters as they come.

    Ends at Ctrl-C, or after --limit records.

    Args:
        what: Verdicts, findings, review (verdicts that ask for a person) or failed (dead letters).
        from_beginning: Start with the oldest record that Kafka still has.
        limit: Stop after so many records.
        feed: Show this feed only.
        json: Print each record as one line of JSON.
        data: Data directory of the running stack.
        config: Settings file that names the Kafka to read.
    """
    import aiokafka.errors
    import msgspec
    from aiokafka import AIOKafkaConsumer

    from imagewire.cli.terminal import console, print_json, print_note
    from imagewire.cli.watch_lines import dead_letter_fields, line_for
    from imagewire.connection import find_connection
    from imagewire.reachability import reaching
    from sinks.kafka.reachable import connection_error

    connection = find_connection(data, config)
    settings = connection.settings.kafka
    topic = getattr(settings.topics, what)

    def record_fields(message: Any) -> dict[str, Any]:
        if what == "failed":
            return dead_letter_fields(message)
        try:
            fields = msgspec.json.decode(message.value or b"")
        except msgspec.DecodeError:  # not one of ours
            fields = (message.value or b"").decode("utf-8", errors="replace")
        return fields if isinstance(fields, dict) else {"value": fields}

    async def follow() -> None:
        # Without a group: watching takes no part in anybody's consumption.
        consumer = AIOKafkaConsumer(
            topic,
            auto_offset_reset="earliest" if from_beginning else "latest",
            **settings.client_options(),
        )
        try:
            await consumer.start()
        except (aiokafka.errors.KafkaError, OSError) as error:
            await consumer.stop()
            where = f"no broker answers at {settings.bootstrap_servers}"
            raise await connection_error(settings, error, where) from error
        try:
            # Where to begin is settled before it is said, so that nothing published after that
            # is missed.
            for partition in consumer.assignment():
                await consumer.position(partition)
            print_note(
                f"watching {topic} on {settings.bootstrap_servers}, "
                f"{'from the beginning' if from_beginning else 'what comes from now on'}; "
                "Ctrl-C ends"
            )
            shown = 0
            async for message in consumer:
                fields = record_fields(message)
                if feed is not None and fields.get("feed") != feed:
                    continue
                if json:
                    print_json(fields, lines=True)
                else:
                    console.print(line_for(what, fields), soft_wrap=True)
                shown += 1
                if limit is not None and shown >= limit:
                    return
        finally:
            await consumer.stop()

    with reaching(connection, "Kafka"):
        asyncio.run(follow())
