"""The result of a query while it arrives, block by block: none has to fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from sinks.clickhouse.arrow_types import with_types

if TYPE_CHECKING:
    from clickhouse_connect.driver.common import StreamContext


class ResultStream:
    """Blocks of at most some ten thousand rows. Use as a context manager, in one thread at a time:
    leaving it early ends the query where the server allows that.

    Args:
        blocks: what the driver gives.
        types: ClickHouse's type of each column by name; empty for a statement that has none.
        max_rows: rows after which the result is cut.
        failed: makes this package's error of the driver's.

    Attributes:
        schema: of every block, with times as timestamps and enumerations as text.
        types: ClickHouse's name of each column's type, Arrow's where ClickHouse gives none.
        rows: how many have been given so far.
        truncated: whether rows were left out; known when the blocks have ended.
    """

    def __init__(
        self,
        blocks: StreamContext,
        types: Mapping[str, str],
        max_rows: int,
        failed: Callable[[Exception], Exception],
    ) -> None:
        self._blocks = blocks
        self._named = types
        self._max_rows = max_rows
        self._failed = failed
        reader: Any = blocks.gen
        bare: pa.Schema = reader.schema
        self.schema: pa.Schema = with_types(bare.empty_table(), types).schema
        self.types = tuple(types.get(field.name, str(field.type)) for field in bare)
        self.rows = 0
        self.truncated = False

    def __enter__(self) -> Self:
        self._blocks.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """
        Raises:
            sinks.clickhouse.reader.QueryError: the query failed under way.
        """
        stream: Iterator[Any] = iter(self._blocks)
        while True:
            try:
                block = next(stream, None)
            except Exception as error:
                raise self._failed(error) from error
            if block is None:
                return
            left = self._max_rows - self.rows
            if block.num_rows > left:
                self.truncated = True
                block = block.slice(0, left)
            if block.num_rows:
                self.rows += block.num_rows
                typed = with_types(pa.Table.from_batches([block]), self._named)
                yield from typed.cast(self.schema).to_batches()
            if self.truncated:
                return

    def close(self) -> None:
        """Let go of the connection."""
        self._blocks.__exit__(None, None, None)  # type: ignore[no-untyped-call]
