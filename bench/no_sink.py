"""A sink for measuring what comes before the sinks."""

from __future__ import annotations

from collections.abc import Sequence

from operators.frame import Frame
from sinks.sink import Sink


class NoSink(Sink):
    """Everything is safe at once. It stands in the place of Kafka's sink, whose name it has."""

    name = "kafka"

    async def open(self) -> None: ...

    async def write(self, frames: Sequence[Frame]) -> None: ...

    async def close(self) -> None: ...
