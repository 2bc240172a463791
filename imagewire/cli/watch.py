"""`imagewire watch`: shows verdicts, findings or dead letters as they come."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter


def watch(
    what: Literal["verdicts", "findings", "review", "failed"] = "verdicts",
    *,
    from_beginning: bool = False,
    limit: int | None = None,
    feed: str | None = None,
    json: bool = False,
    data: Annotated[Path | None, Parameter(name=["--data", "-d"])] = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
) -> None:
    """Show records as they are written to Kafka, until Ctrl-C.

    Parameters
    ----------
    what: verdicts, findings, review (verdicts that ask for a person) or failed (dead letters).
    from_beginning: start with the oldest record that Kafka still has.
    limit: stop after so many records.
    feed: show this feed only.
    json: print each record as one line of JSON.
    data: data directory of the running stack.
    config: settings file that names the Kafka to read.
    """
    import aiokafka.errors
    import msgspec
    from aiokafka import AIOKafkaConsumer

    from imagewire.cli.terminal import console, print_json
    from imagewire.cli.watch_lines import dead_letter_fields, line_for
    from imagewire.connection import find_connection
    from sinks.sink import TransientSinkError

    settings = find_connection(data, config).settings.kafka
    topic = getattr(settings.topics, what)

    def record_fields(message: Any) -> dict[str, Any]:
        if what == "failed":
            return dead_letter_fields(message)
        fields = msgspec.json.decode(message.value)
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
            raise TransientSinkError(
                f"no broker answers at {settings.bootstrap_servers}: {error}"
            ) from error
        try:
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

    asyncio.run(follow())
