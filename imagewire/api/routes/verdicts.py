"""Verdicts as they come, as server-sent events that can be taken up where they were left."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Header, Query
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from imagewire.api.keys import Caller, needs
from imagewire.api.keys import Scope as KeyScope
from imagewire.api.problems import Problem, invalid
from imagewire.api.services import Shared
from imagewire.api.verdict_feed import (
    BadPositionError,
    Gap,
    Progress,
    Reader,
    Told,
    TooSlowError,
    VerdictFeed,
    id_of,
    progress_of,
)
from sinks.sink import SinkError

logger = logging.getLogger(__name__)

router = APIRouter(tags=["verdicts"])

HEARTBEAT_SECONDS = 10.0
"""Proxies end connections that are silent for a minute, and some for 15 s."""
_RETRY_MS = 1000

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events `verdict`, each with a record of images.verdicts as data; `gap` "
        "where Kafka no longer has what came in between; comments as heartbeats.",
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": 'id: 0:42,1:17\nevent: verdict\ndata: {"image_id":"bus-1",'
                '"content_id":"9f2c…","feed":"gate","event_time":"2026-01-31T08:15:00.000Z",'
                '"uri":null,"action":"allow","rules":[],"policy":"default@1"}\n\n',
            }
        },
    }
}


@router.get(
    "/v1/verdicts/stream",
    summary="Verdicts as they come",
    response_class=StreamingResponse,
    responses=_STREAM,
)
async def stream_verdicts(
    services: Shared,
    caller: Annotated[Caller, Depends(needs(KeyScope.READ))],
    feed: Annotated[str | None, Query(max_length=128, description="Of this feed only.")] = None,
    verdict: Annotated[
        Literal["allow", "review", "block"] | None, Query(description="Such verdicts only.")
    ] = None,
    last_event_id: Annotated[
        str | None,
        Header(
            max_length=8192,
            description="The id of the last event that was read: the stream goes on after it, "
            "with nothing left out and nothing twice. Without one it begins now.",
        ),
    ] = None,
) -> StreamingResponse:
    """Server-sent events that do not end. A reader who is too slow is sent away, and loses nothing
    by coming back with the id of the last event."""
    if feed is not None:
        caller.require_feed(feed)
    try:
        after = progress_of(last_event_id) if last_event_id else None
    except BadPositionError as error:
        raise invalid(str(error), where="header.last-event-id") from error
    reader = await _joined(services.verdicts, services.settings.api.max_streams, after)

    def wanted(told: Told) -> bool:
        return (
            (feed is None or told.feed == feed)
            and (verdict is None or told.action == verdict)
            and caller.sees(told.feed)
        )

    async def events() -> AsyncIterator[bytes]:
        try:
            # The id goes first: who is cut off before the first event also knows where to go on.
            yield b"retry: %d\nid: %s\n: connected\n\n" % (_RETRY_MS, _id(reader))
            async for told in reader.missed():
                reader.given(told)
                if isinstance(told, Gap) or wanted(told):
                    yield _event(told, reader)
            while (come := await reader.next(HEARTBEAT_SECONDS)) is not None:
                chunk = b""
                for told in come:
                    reader.given(told)
                    chunk += _event(told, reader) if wanted(told) else b""
                # An id without data moves the reader on past what was not for them.
                yield chunk or b"id: %s\n: heartbeat\n\n" % _id(reader)
        except TooSlowError:
            yield b": too slow; come back with the last id\n\n"
        except SinkError as error:
            logger.warning("a stream of verdicts ends: %s", error)
            yield b": Kafka does not answer; come back with the last id\n\n"

    return _Stream(events(), lambda: services.verdicts.leave(reader))


class _Stream(StreamingResponse):
    """`left` is called when the reader has gone, also one who went before the first event."""

    def __init__(self, events: AsyncIterator[bytes], left: Callable[[], None]) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._left()


async def _joined(feed: VerdictFeed, most: int, after: Progress | None) -> Reader:
    if feed.readers >= most:
        raise Problem(
            503,
            "busy",
            "Too much is asked at once",
            f"{feed.readers} readers follow the verdicts already (api.max_streams)",
            headers={"Retry-After": "10"},
        )
    return await feed.join(after)


def _id(reader: Reader) -> bytes:
    return id_of(reader.progress).encode()


def _event(told: Told | Gap, reader: Reader) -> bytes:
    if isinstance(told, Told):
        return b"id: %s\nevent: verdict\ndata: %s\n\n" % (_id(reader), told.data)
    data = msgspec.json.encode(
        {"partition": told.partition, "first": told.first, "until": told.until}
    )
    return b"id: %s\nevent: gap\ndata: %s\n\n" % (_id(reader), data)
