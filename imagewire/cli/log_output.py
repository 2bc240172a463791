"""Logs on standard error: a worker writes them, a command that has its own words does not."""

from __future__ import annotations

import logging
import sys
from collections import Counter
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


class Repetitions(logging.Filter):
    """Lets a library say the same thing once in `seconds`, and then how often it wanted to.

    While a broker is away aiokafka logs some fifty lines a second; Imagewire's own loggers say once
    that it is away, and are let through as they are.
    """

    def __init__(self, seconds: float = 60.0) -> None:
        super().__init__()
        self._seconds = seconds
        self._said: dict[tuple[str, str], float] = {}
        self._left_out: Counter[tuple[str, str]] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.split(".")[0] in OWN:
            return True
        # The message before its arguments are put in: they differ from one attempt to the next.
        said = (record.name, str(record.msg))
        # A clock that was set back leaves a time of the future, which must not silence anything.
        if 0 <= record.created - self._said.get(said, float("-inf")) < self._seconds:
            self._left_out[said] += 1
            return False
        if len(self._said) > 1000:
            self._said.clear()  # messages that are made anew each time
        self._said[said] = record.created
        if left_out := self._left_out.pop(said, 0):
            record.msg = f"{record.getMessage()} ({left_out} more like it left out)"
            record.args = ()
        return True


def is_news(record: logging.LogRecord) -> bool:
    """False for what aiokafka calls an error and every first join goes through: the broker has yet
    to make the topic of offsets. Where it lasts, `streams.intake` says so."""
    arguments = record.args if isinstance(record.args, tuple) else ()
    return not any(
        type(argument).__name__ == "GroupCoordinatorNotAvailableError" for argument in arguments
    )


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
    handler.addFilter(is_news)
    handler.addFilter(Repetitions())
    logging.basicConfig(
        level=max(logging.WARNING, logging.getLevelNamesMapping()[level]), handlers=[handler]
    )
    for name in OWN:
        logging.getLogger(name).setLevel(level)
    for name in ("clickhouse_connect", "urllib3"):
        # Each attempt of each insert warns; the sink's writer says once that the store is away.
        logging.getLogger(name).setLevel(logging.ERROR)
