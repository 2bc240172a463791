"""Logs on standard error: a worker writes them, a command that has its own words does not."""

from __future__ import annotations

import logging
import sys

LIBRARIES = (
    *("aiokafka", "asyncio", "clickhouse_connect", "faust", "grpc"),
    *("httpcore", "httpx", "kafka", "mode", "qdrant_client"),
)
"""What they log of a broker that is away, say, a command tells in a sentence of its own."""


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
    """Write a worker's log. Libraries have a say from WARNING on."""
    logging.basicConfig(
        level=level,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    least = max(logging.WARNING, logging.getLevelNamesMapping()[level])
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(least)
