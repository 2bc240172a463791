"""What the pipeline asks of the parts that do its work.

The parts live in lower layers or beside it; naming only what is used lets tests put a part with a
fault in the place of a real one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from operators.chain import OutOfMemory
from operators.frame import Frame


class FetchesReferences(Protocol):
    """Where bytes come from; see `streams.fetch.Fetcher`."""

    async def fetch(self, uri: str) -> bytes: ...


class DecodesFrames(Protocol):
    """What turns `frame.content` into `frame.pixels`; see `operators.decode.Decoder`."""

    def decode_parts(self, frames: Sequence[Frame]) -> Iterator[list[Frame]]: ...


class ProcessesFrames(Protocol):
    """What fills `frame.findings`; see `operators.chain.OperatorChain`."""

    def analyse(self, frames: Sequence[Frame]) -> OutOfMemory | None: ...

    def decide(self, frames: Sequence[Frame]) -> None: ...


class RecognisesImages(Protocol):
    """What knows banned images before anything has looked at them; see
    `operators.chain.OperatorChain`."""

    on_settled: Callable[[list[Frame]], object] | None

    def recognise(self, frames: Sequence[Frame]) -> list[Frame]: ...

    def recognise_again(self, frames: Sequence[Frame]) -> None: ...
