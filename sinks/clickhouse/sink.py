"""Writes findings and failures to ClickHouse so that a replay leaves the tables as they were.

A row's identity is (feed, event_time, image_id) and ReplacingMergeTree keeps one row of each. The
one thing that could break it is an id published again without `captured_at`: its event time is then
the Kafka timestamp, another one each time. For such frames the first event time wins: it is looked
up, in one query a batch.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from string import Template
from typing import TYPE_CHECKING, ClassVar, TypeVar

from operators.frame import Frame
from sinks.clickhouse.connection import (
    ACCESS_CODES,
    connect,
    engine_message,
    is_transient,
    place,
)
from sinks.clickhouse.erasing import ClickHouseEraser, Selection
from sinks.clickhouse.rows import FAILURE_COLUMNS, IMAGE_COLUMNS, Column, Row, as_columns
from sinks.clickhouse.schema import migrate, set_retention
from sinks.clickhouse.settings import ClickHouseSettings
from sinks.sink import AccessSinkError, PermanentSinkError, Sink, SinkError, TransientSinkError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

logger = logging.getLogger(__name__)

Key = tuple[str, str]
"""feed and image_id."""
_T = TypeVar("_T")

_INSERT_SETTINGS = {
    # Batches are made here, and an insert must be safe when it is answered.
    "async_insert": 0,
    # An archive with old capture dates spreads over more months than the default of 100 allows.
    "max_partitions_per_insert_block": 0,
}

_END_OF_CLOCKS_MS = 4_102_444_800_000
"""The year 2100. Later times come from clocks that are wrong, and from 2106 on they begin anew in
ClickHouse's DateTime."""

_STORED_EVENT_TIMES = Template("""
SELECT feed, image_id, toUnixTimestamp64Milli(min(event_time))
FROM
(
    SELECT feed, image_id, event_time FROM ${database}.images_raw
    WHERE image_id IN {ids:Array(String)} AND feed IN {feeds:Array(String)}
    UNION ALL
    SELECT feed, image_id, event_time FROM ${database}.failures_raw
    WHERE image_id IN {ids:Array(String)} AND feed IN {feeds:Array(String)}
)
GROUP BY feed, image_id
""")


class ClickHouseSink(Sink):
    """Frames that succeeded become rows of `images_raw`, the others rows of `failures_raw`.

    Args:
        settings: where ClickHouse is, and how long rows are kept.
    """

    name: ClassVar[str] = "clickhouse"

    def __init__(self, settings: ClickHouseSettings) -> None:
        self._settings = settings
        self._client: Client | None = None
        # The driver is synchronous and its client belongs to one statement at a time.
        self._thread = ThreadPoolExecutor(1, "clickhouse-sink")

    async def open(self) -> None:
        await self._call("opening", self._open)
        logger.info(
            "ClickHouse at %s: database '%s' is ready",
            place(self._settings),
            self._settings.database,
        )

    async def write(self, frames: Sequence[Frame]) -> None:
        if frames:
            await self._call(f"writing {len(frames)} frames", lambda: self._write(frames))

    async def erase(self, frames: Sequence[Frame]) -> None:
        """Take back what was written of `frames`: they were erased while they were written.

        Raises:
            TransientSinkError, PermanentSinkError
        """
        ids = sorted({frame.image_id for frame in frames})
        await self._call(f"erasing {len(ids)} images", lambda: self._erase(ids))

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, client.close)
            except Exception as error:  # noqa: BLE001 - closing a store that is gone is no failure
                logger.debug("closing the ClickHouse client: %s", error)
        self._thread.shutdown(wait=False)

    async def _call(self, doing: str, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except SinkError:
            raise
        except Exception as error:
            raise _sink_error(error, doing, self._settings) from error

    def _open(self) -> None:
        client = connect(self._settings)
        try:
            migrate(client, self._settings.database)
            set_retention(client, self._settings.database, self._settings.retention_days)
        except BaseException:
            client.close()
            raise
        self._client = client

    def _write(self, frames: Sequence[Frame]) -> None:
        client = self._client
        if client is None:
            raise TransientSinkError("the ClickHouse sink is not open; open it before writing")
        now = time.time_ns() // 1_000_000
        event_times = self._event_times(client, frames)
        rows = [
            Row(
                frame,
                event_times.get((frame.feed, frame.image_id), frame.event_time_ms)
                if _may_move(frame)
                else frame.event_time_ms,
                _ingested_at(frame, now),
            )
            for frame in frames
        ]
        self._insert(client, "images_raw", IMAGE_COLUMNS, [r for r in rows if not r.frame.failed])
        self._insert(client, "failures_raw", FAILURE_COLUMNS, [r for r in rows if r.frame.failed])

    def _erase(self, image_ids: Sequence[str]) -> None:
        eraser = ClickHouseEraser(self._settings)
        try:
            eraser.erase(Selection(image_ids))
        finally:
            eraser.close()

    def _insert(
        self, client: Client, table: str, columns: Mapping[str, Column], rows: Sequence[Row]
    ) -> None:
        if not rows:
            return
        client.insert(
            f"{self._settings.database}.{table}",
            as_columns(rows, columns),
            column_names=list(columns),
            column_type_names=[column.type_name for column in columns.values()],
            column_oriented=True,
            settings=_INSERT_SETTINGS,
        )

    def _event_times(self, client: Client, frames: Sequence[Frame]) -> dict[Key, int]:
        """The event time, in milliseconds, under which frames whose own may move are stored."""
        moving = [frame for frame in frames if _may_move(frame)]
        if not moving:
            return {}
        wanted = {(frame.feed, frame.image_id) for frame in moving}
        first: dict[Key, int] = {}
        for frame in frames:
            key = (frame.feed, frame.image_id)
            if key in wanted:
                first[key] = min(first.get(key, frame.event_time_ms), frame.event_time_ms)
        stored = client.query(
            _STORED_EVENT_TIMES.substitute(database=self._settings.database),
            parameters={
                "ids": sorted({image_id for _, image_id in wanted}),
                "feeds": sorted({feed for feed, _ in wanted}),
            },
        )
        for feed, image_id, event_time in stored.result_rows:
            if (feed, image_id) in wanted:
                first[feed, image_id] = event_time
        return first


def _ingested_at(frame: Frame, now: int) -> int:
    """When the row is written: not before its record reached Kafka, in milliseconds.

    Rows are kept for some days from then on, so that a machine whose clock is far behind would
    write rows that ClickHouse deletes at once.
    """
    reached = frame.origin.timestamp_ms
    return max(now, reached) if reached < _END_OF_CLOCKS_MS else now


def _may_move(frame: Frame) -> bool:
    """Whether publishing this frame again would give it another event time."""
    return frame.id_given and not frame.captured_at_given


def _sink_error(error: Exception, doing: str, settings: ClickHouseSettings) -> SinkError:
    """What `error` means for the pipeline: transient or permanent, with a message for people."""
    message = f"ClickHouse at {place(settings)}, {doing}: {engine_message(error)}"
    if is_transient(error):
        return TransientSinkError(message)
    if getattr(error, "code", None) in ACCESS_CODES:
        return AccessSinkError(f"{message}; correct clickhouse.username and clickhouse.password")
    return PermanentSinkError(message)
