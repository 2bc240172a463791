"""Logs on standard error: a worker writes them, a command that has its own words does not."""

from __future__ import annotations

import logging
import sys
from types import TracebackType

LIBRARIES = (
    *("aiokafka", "asyncio", "clickhouse_connect", "faust", "grpc"),
    *("httpcore", "httpx", "kafka", "mode", "qdrant_client", "urllib3"),
)
"""What they log of a broker that is away, say, a command tells in a sentence of its own."""

OWN = ("imagewire", "streams", "sinks", "operators", "models")
"""Loggers that follow `log.level`. Libraries have a say from WARNING on: below, some of them write
the headers that they send, keys and passwords included."""


class LogLines(logging.Formatter):
    """One record is one line, and nothing in it moves a terminal's cursor.

    Ids, addresses and error messages come from strangers: a line break in one would forge a record
    of the log. Lines of a traceback are marked, so that none can be taken for one.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable_line(super().formatMessage(record))

    def formatException(  # noqa: N802 - logging's name
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> str:
        return _marked(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        return _marked(super().formatStack(stack_info))


def printable_line(text: str) -> str:
    """`text` with every character that is not printable written as its escape."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def _marked(text: str) -> str:
    return "\n".join(f"  | {printable_line(line)}" for line in text.split("\n"))


def quiet_libraries() -> None:
    """Keep libraries' warnings off the terminal, unless something is set up to write logs.

    A logger without any handler prints its warnings; a handler that does nothing stops that and
    leaves those of the root logger, if there are any, as they are.
    """
    for name in LIBRARIES:
        logger = logging.getLogger(name)
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())


def write_log(level: str) -> None:
    """Write a worker's log: its own from `level` on, that of libraries from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogLines())
    logging.basicConfig(
        level=max(logging.WARNING, logging.getLevelNamesMapping()[level]), handlers=[handler]
    )
    for name in OWN:
        logging.getLogger(name).setLevel(level)
    for name in ("clickhouse_connect", "urllib3"):
        # Each attempt of each insert warns; the sink's writer says once that the store is away.
        logging.getLogger(name).setLevel(logging.ERROR)
