"""SQL of callers: so many statements at once, results piece by piece, and an end to slow readers.

A statement holds one of a few places from its start until its result has been sent or given up, so
that however many ask, and however slowly they read, the stores keep most of their time for the
stream. The first pieces are gathered before anything is sent: most statements that fail do so by
then, and get an answer that says why.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import AsyncIterator, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from imagewire.api.problems import RETRY_SECONDS, Problem, store_is_away
from imagewire.api.sql_results import MEDIA_TYPES, BrokenOffError, Encoder, SqlFormat, encoder
from imagewire.api.sql_values import UnreadableTextError
from sinks.clickhouse.reader import ClickHouseReader, QueryError

logger = logging.getLogger(__name__)

GATHERED_BYTES = 256 * 1024
"""Sent at the earliest when so much is there, or all: until then a failure is a problem."""
WAITING_SECONDS = 10.0
"""How long a statement waits for a place before its caller is told to come again."""
MOST_WAITING = 16
SENDING_SECONDS = 600.0
"""How long a result may take to be sent; then the connection is cut."""

_FAILURES = (QueryError, UnreadableTextError, BrokenOffError)
_BUSY_CODE = 202  # TOO_MANY_SIMULTANEOUS_QUERIES
_FORBIDDEN_CODES = frozenset({164, 497})  # READONLY, ACCESS_DENIED
_NO_DATABASE_CODE = 81
_SERVER_SAYS = re.compile(r"DB::Exception: ((?:(?!Code: \d+\. DB::Exception: ).)*)$", re.DOTALL)
_ADDRESS = re.compile(r"\s*\(for url [^)]*\)\s*$")
_NAME = re.compile(r"\(([A-Z][A-Z0-9_]+)\)")


class SqlQuestions:
    """Asks ClickHouse what callers want to know.

    Args:
        reader: for these questions only.
        at_once: statements at the same time.
    """

    def __init__(self, reader: ClickHouseReader, at_once: int) -> None:
        self._reader = reader
        self._at_once = at_once
        self._places = asyncio.Semaphore(at_once)
        self._waiting = 0
        self._threads = ThreadPoolExecutor(at_once, "sql")

    async def answer(
        self,
        query: str,
        params: Mapping[str, Any],
        output: SqlFormat,
        *,
        max_rows: int | None = None,
        spreadsheet_safe: bool = True,
    ) -> StreamingResponse:
        """The response that streams the result of one statement.

        Args:
            output: its format.
            max_rows: rows after which it is cut.
            spreadsheet_safe: in CSV, put an apostrophe before text that begins like a formula.

        Raises:
            Problem: the statement was refused or failed, or too many wait.
        """
        await self._take_place()
        encoding = encoder(output, spreadsheet_safe=spreadsheet_safe)
        result = _Result(self, self.pieces(query, params, max_rows, encoding), encoding)
        try:
            first = await result.gather()
        except BaseException:
            result.close()
            raise
        return _SqlResponse(result, first, MEDIA_TYPES[output])

    async def close(self) -> None:
        """Begin nothing more, and wait for what runs."""
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)

    async def _take_place(self) -> None:
        if self._places.locked() and self._waiting >= MOST_WAITING:
            raise self._busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(WAITING_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise self._busy() from None
        finally:
            self._waiting -= 1

    def _busy(self) -> Problem:
        return Problem(
            429,
            "sql-busy",
            "Too many statements at once",
            f"{self._at_once} statements are running and others wait; ask again later",
            headers={"Retry-After": str(RETRY_SECONDS)},
        )

    async def run(self, work: Any) -> Any:
        """What `work` returns, called in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def leave(self, close: Any) -> None:
        """Close a result in a thread, and give its place to another."""
        loop = asyncio.get_running_loop()
        try:
            closing = self._threads.submit(close)
        except RuntimeError:  # the threads are being shut down, and the process is about to end
            close()
            self._places.release()
            return
        closing.add_done_callback(lambda _: _tell(loop, self._places.release))

    def pieces(
        self, query: str, params: Mapping[str, Any], max_rows: int | None, encoding: Encoder
    ) -> Generator[bytes]:
        """The encoded result; blocks, for use in a thread. Nothing is asked before the first."""
        with self._reader.stream(query, params, max_rows) as result:
            yield encoding.begin(result)
            for block in result:
                yield from encoding.block(block)
            if result.truncated and max_rows is None and not encoding.tells:
                raise BrokenOffError(
                    f"the result has more than {result.rows} rows; say with max_rows how many of "
                    "them are wanted"
                )
            yield encoding.end(result)


class _Result:
    """One statement's pieces, pulled one after the other."""

    def __init__(self, owner: SqlQuestions, pieces: Generator[bytes], encoding: Encoder) -> None:
        self._owner = owner
        self._pieces = pieces
        self._encoding = encoding
        self._turn = threading.Lock()
        self._closed = False

    async def gather(self) -> list[bytes]:
        """The first pieces.

        Raises:
            Problem
        """
        first: list[bytes] = []
        size = 0
        try:
            while size < GATHERED_BYTES and (piece := await self._next()) is not None:
                first.append(piece)
                size += len(piece)
        except _FAILURES as error:
            raise problem_of_statement(error) from error
        return first

    async def rest(self, first: list[bytes]) -> AsyncIterator[bytes]:
        """All pieces.

        Raises:
            BrokenOffError: it failed under way, which the format cannot say.
        """
        yield b"".join(first)
        try:
            while (piece := await self._next()) is not None:
                yield piece
        except _FAILURES as error:
            logger.warning("a result of SQL was broken off: %s", error)
            yield self._encoding.fail(_plain(str(error)))

    def close(self) -> None:
        """Once; from the event loop."""
        if not self._closed:
            self._closed = True
            self._owner.leave(self._end)

    async def _next(self) -> bytes | None:
        found: bytes | None = await self._owner.run(self._pull)
        return found

    def _pull(self) -> bytes | None:
        with self._turn:
            return next(self._pieces, None)

    def _end(self) -> None:
        with self._turn:
            self._pieces.close()


class _SqlResponse(StreamingResponse):
    """Sends a result, and lets go of it whatever becomes of the connection."""

    def __init__(self, result: _Result, first: list[bytes], media_type: str) -> None:
        super().__init__(result.rest(first), media_type=media_type)
        self._result = result

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(SENDING_SECONDS):
                await super().__call__(scope, receive, send)
        finally:
            self._result.close()


def problem_of_statement(error: Exception) -> Problem:
    """What a refused or failed statement is to whoever sent it."""
    if not isinstance(error, QueryError):
        return Problem(400, "sql", "The result cannot be given", str(error), code=None)
    if error.refused:
        return Problem(
            403,
            "sql-refused",
            "The statement was refused",
            str(error),
            code=None,
            message=str(error),
        )
    if error.code is None or error.code == _NO_DATABASE_CODE:
        logger.warning("ClickHouse: %s", error)
        return store_is_away("ClickHouse", "" if error.code is None else str(error))
    message = _plain(str(error))
    name = _NAME.findall(str(error))
    fields: dict[str, Any] = {
        "code": error.code,
        "name": name[-1] if name else None,
        "message": message,
    }
    title = "ClickHouse refused the statement"
    if error.code == _BUSY_CODE:
        wait = {"Retry-After": str(RETRY_SECONDS)}
        return Problem(
            429, "sql-busy", "Too many statements at once", message, headers=wait, **fields
        )
    status = 403 if error.code in _FORBIDDEN_CODES else 400
    return Problem(status, "sql", title, f"{message} (code {error.code})", **fields)


def _plain(text: str) -> str:
    """ClickHouse's own words, without the driver's around them and without its address."""
    text = _ADDRESS.sub("", text)
    found = _SERVER_SAYS.search(text)
    words = found[1] if found else text
    return _NAME.sub("", words).strip().rstrip(".").strip() or text


def _tell(loop: asyncio.AbstractEventLoop, what: Any) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(what)
