"""ClickHouse's engine in a process of its own, behind ClickHouse's HTTP dialect on loopback.

`python -m imagewire.embedded.clickhouse_front --path DIR --port N` serves the tables of DIR to any
ClickHouse client, so that worker, command line and foreign tools reach an embedded engine by the
same code as a server. It is a process of its own because chDB allows one per directory, and because
in the worker's process it takes the processor from the models. Two users exist: `writer` may do
everything, `analyst` may only read tables, within limits. With `--guest-port` a second port lets
`analyst` in and nobody else, for tools such as DBeaver and Grafana: their statements wait in a
queue of their own, so that a dashboard never holds up the console. Sessions are not kept: every
statement stands alone. Exit status: 0 after a stop, 1 when it cannot start.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import hmac
import json
import os
import re
import signal
import sys
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from imagewire.embedded.clickhouse_engine import (
    Answer,
    Engine,
    EngineDirectoryInUse,
    EngineError,
    Request,
)
from imagewire.embedded.clickhouse_http import encoded, error_response, read_body
from imagewire.embedded.clickhouse_limits import analyst_settings
from sinks.clickhouse.sql_guard import RefusedStatement, reading_statement

WRITER = "writer"
ANALYST = "analyst"
WRITER_PASSWORD_VARIABLE = "IMAGEWIRE_FRONT_WRITER_PASSWORD"  # noqa: S105 - a name
ANALYST_PASSWORD_VARIABLE = "IMAGEWIRE_FRONT_ANALYST_PASSWORD"  # noqa: S105 - a name

MAX_BODY_BYTES = 1 << 30
MAX_STATEMENT_BYTES = 16 << 20
"""Of an analyst, who sends statements and their parameters and no data."""
STOP_SECONDS = 3.0
"""How long running statements may go on after SIGTERM before they are killed, and how long after
that the process waits for them."""
PARENT_POLL_SECONDS = 0.5
THREADS: Mapping[str, int] = {WRITER: 2, ANALYST: 4}
"""Statements of a user at once: two of the writer's, which a disk does not write faster in more;
of the analyst's so many that those of people leave some for the console's own."""
GUEST_THREADS = 2
WAITING_STATEMENTS = 64
"""Statements of one user that may wait for a thread; more are refused with 429."""

_TRANSPORT_PARAMETERS = frozenset(
    {
        "buffer_size", "cancel_http_readonly_queries_on_client_close", "client_protocol_version",
        "database", "default_format", "enable_http_compression",
        "http_headers_progress_interval_ms", "password", "query", "query_id", "quota_key", "role",
        "send_progress_in_http_headers", "session_check", "session_id", "session_timeout",
        "stacktrace", "user", "wait_end_of_query",
    }
)  # fmt: skip
_QUERY_ID = re.compile(r"[\w.:-]{1,200}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Account:
    """A user: the password and the threads that run the user's statements, so that analysts never
    hold up the writer."""

    password: bytes
    threads: ThreadPoolExecutor


class ClickHouseFront:
    """Answers ClickHouse's HTTP requests from an `Engine`.

    Args:
        engine: an open engine; closed by the caller.
        passwords: user to password; a user without one cannot log in.
        threads: statements of each user at once.
    """

    def __init__(
        self,
        engine: Engine,
        passwords: Mapping[str, str],
        threads: Mapping[str, int] = THREADS,
    ) -> None:
        self._engine = engine
        self._accounts = {
            user: Account(
                password.encode(), ThreadPoolExecutor(threads[user], f"clickhouse-{user}")
            )
            for user, password in passwords.items()
        }
        self._running: set[asyncio.Future[Answer]] = set()
        self._waiting = dict.fromkeys(passwords, 0)

    def application(self) -> web.Application:
        """The aiohttp application with ClickHouse's routes."""
        application = web.Application(client_max_size=MAX_BODY_BYTES)
        application.router.add_get("/ping", self._ping)
        application.router.add_get("/replicas_status", self._ping)
        application.router.add_route("*", "/", self._handle)
        return application

    async def drain(self) -> bool:
        """Let running statements end, then kill them. Whether all have ended."""
        for interrupt in (False, True):
            if not self._running:
                break
            if interrupt:
                await asyncio.to_thread(self._engine.interrupt)
            await asyncio.wait(self._running, timeout=STOP_SECONDS)
        ended = not self._running
        for account in self._accounts.values():
            account.threads.shutdown(wait=ended, cancel_futures=True)
        return ended

    async def _ping(self, _request: web.Request) -> web.Response:
        return web.Response(text="Ok.\n")

    async def _handle(self, http: web.Request) -> web.Response:
        if http.method in ("GET", "HEAD") and "query" not in http.query:
            return web.Response(text="Ok.\n")
        fields = dict(http.query)
        query_id = fields.get("query_id", "")
        if not _QUERY_ID.fullmatch(query_id):  # it becomes a header of the answer
            query_id = str(uuid.uuid4())
        try:
            user = self._authenticate(http, fields)
            most_bytes = MAX_STATEMENT_BYTES if user == ANALYST else MAX_BODY_BYTES
            body = await read_body(http, fields, most_bytes)
            request = self._request(http, fields, body, user)
            answer = await self._execute(user, request)
        except RefusedStatement as refusal:
            return error_response(EngineError(497, f"{refusal}. (ACCESS_DENIED)"), query_id)
        except EngineError as error:
            return error_response(error, query_id)
        return self._answer(http, fields, answer, query_id)

    def _authenticate(self, http: web.Request, fields: Mapping[str, str]) -> str:
        user: str = fields.get("user") or http.headers.get("X-ClickHouse-User") or ""
        password: str = fields.get("password") or http.headers.get("X-ClickHouse-Key") or ""
        scheme, _, credentials = http.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                decoded = base64.b64decode(credentials, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                decoded = ""
            user, _, password = decoded.partition(":")
        account = self._accounts.get(user)
        expected = account.password if account else b""
        # compared also for unknown users, so that the answer takes the same time for all
        matches = hmac.compare_digest(expected, password.encode())
        if account is None or not matches:
            raise EngineError(
                516,
                f"{user or 'default'}: Authentication failed: password is incorrect, or there is "
                "no user with such name. (AUTHENTICATION_FAILED)",
            )
        return user

    def _request(
        self, http: web.Request, fields: Mapping[str, str], body: bytes, user: str
    ) -> Request:
        if fields.get("compress") == "1" or fields.get("decompress") == "1":
            raise EngineError(
                48,
                "compress=1 and decompress=1 are not supported by the embedded engine's front; use "
                "Accept-Encoding and Content-Encoding (lz4, gzip). (NOT_IMPLEMENTED)",
            )
        query = fields.get("query", "").encode()
        sql = query + (b"\n" if query and body else b"") + body
        if not sql.strip():
            raise EngineError(62, "Empty query. (SYNTAX_ERROR)")
        settings = {
            name: value
            for name, value in fields.items()
            if name not in _TRANSPORT_PARAMETERS
            and not name.startswith("param_")
            and name not in ("compress", "decompress")
        }
        readonly = 2 if http.method == "GET" else 0
        if user == ANALYST:
            try:
                text = sql.decode()
            except UnicodeDecodeError as error:
                raise RefusedStatement("the statement is not UTF-8") from error
            sql = reading_statement(text, self._engine.table_functions).encode()
            settings = analyst_settings(settings, self._engine.max_memory)
            readonly = 1
        elif settings.pop("readonly", "0") != "0":
            readonly = 1
        return Request(
            sql=sql,
            database=fields.get("database") or http.headers.get("X-ClickHouse-Database"),
            settings=settings,
            parameters={
                name.removeprefix("param_"): value
                for name, value in fields.items()
                if name.startswith("param_")
            },
            default_format=http.headers.get("X-ClickHouse-Format")
            or fields.get("default_format")
            or "TabSeparated",
            readonly=readonly,
        )

    async def _execute(self, user: str, request: Request) -> Answer:
        if self._waiting[user] >= WAITING_STATEMENTS:
            raise EngineError(
                202,
                f"{WAITING_STATEMENTS} statements of '{user}' are running or waiting; try again "
                "later. (TOO_MANY_SIMULTANEOUS_QUERIES)",
            )
        self._waiting[user] += 1
        running = asyncio.get_running_loop().run_in_executor(
            self._accounts[user].threads, self._engine.execute, request
        )
        self._running.add(running)
        running.add_done_callback(lambda done: self._ended(user, done))
        # shielded: when a client goes away its statement still has to be counted until it ends
        return await asyncio.shield(running)

    def _ended(self, user: str, running: asyncio.Future[Answer]) -> None:
        self._running.discard(running)
        self._waiting[user] -= 1
        if not running.cancelled():
            running.exception()  # taken, for the case that its client went away

    def _answer(
        self, http: web.Request, fields: Mapping[str, str], answer: Answer, query_id: str
    ) -> web.Response:
        headers = {
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Timezone": self._engine.timezone,
            "X-ClickHouse-Server-Display-Name": "imagewire-embedded",
            "X-ClickHouse-Summary": json.dumps(dict(answer.summary)),
        }
        content_type = "application/octet-stream"
        if answer.output_format is not None:
            headers["X-ClickHouse-Format"] = answer.output_format
            if answer.output_format.startswith(("TabSeparated", "TSV", "Pretty", "Vertical")):
                content_type = "text/plain"
            elif answer.output_format.startswith("JSON"):
                content_type = "application/json"
        data = answer.data
        if data and fields.get("enable_http_compression", "1") == "1":
            data, encoding = encoded(data, http.headers.get("Accept-Encoding", ""))
            if encoding is not None:
                headers["Content-Encoding"] = encoding
        return web.Response(body=data, headers=headers, content_type=content_type)


async def serve(
    engine: Engine,
    passwords: Mapping[str, str],
    host: str,
    port: int,
    parent: int,
    guest_port: int | None = None,
) -> bool:
    """Serve until SIGTERM, SIGINT or the end of the process `parent`, which started this one.

    Prints one line, `listening on http://HOST:PORT`, once requests are answered. Returns whether
    every statement had ended, so that the engine can be closed.

    Args:
        guest_port: a second port, where only the analyst may log in; `None` for none.
    """
    fronts = [(ClickHouseFront(engine, passwords), port)]
    if guest_port is not None:
        guests = {user: password for user, password in passwords.items() if user == ANALYST}
        fronts.append((ClickHouseFront(engine, guests, {ANALYST: GUEST_THREADS}), guest_port))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runners, sites = [], []
    for front, at in fronts:
        runner = web.AppRunner(front.application(), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        site = web.TCPSite(runner, host, at)
        await site.start()
        runners.append(runner)
        sites.append(site)
    bound = runners[0].addresses[0][1]
    sys.stdout.write(f"listening on http://{host}:{bound}\n")
    sys.stdout.flush()
    watch = asyncio.create_task(_stop_with_parent(parent, stop))
    await stop.wait()
    watch.cancel()
    for site in sites:
        await site.stop()
    ended = await asyncio.gather(*(front.drain() for front, _ in fronts))
    for runner in runners:
        await runner.cleanup()
    return all(ended)


async def _stop_with_parent(parent: int, stop: asyncio.Event) -> None:
    """Polling rather than PR_SET_PDEATHSIG, which fires when the starting THREAD ends."""
    while os.getppid() == parent:  # noqa: ASYNC110 - the kernel offers no event for this
        await asyncio.sleep(PARENT_POLL_SECONDS)
    stop.set()


def main(arguments: list[str] | None = None) -> int:
    """Run the front as a process; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m imagewire.embedded.clickhouse_front", description=__doc__
    )
    parser.add_argument("--path", type=Path, required=True, help="directory of the data")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port; 0 takes a free one")
    parser.add_argument(
        "--guest-port", type=int, help="a second port, where only the analyst may log in"
    )
    parser.add_argument(
        "--max-memory", type=int, default=1_500_000_000, help="bytes the engine may use"
    )
    parser.add_argument(
        "--parent",
        type=int,
        default=os.getppid(),
        help="process to end with; by default the one that started this",
    )
    options = parser.parse_args(arguments)
    passwords = {
        user: os.environ.pop(variable)
        for user, variable in (
            (WRITER, WRITER_PASSWORD_VARIABLE),
            (ANALYST, ANALYST_PASSWORD_VARIABLE),
        )
        if os.environ.get(variable)
    }
    if not passwords:
        sys.stderr.write(
            f"nobody could log in: set {WRITER_PASSWORD_VARIABLE} and "
            f"{ANALYST_PASSWORD_VARIABLE} in the environment\n"
        )
        return 1
    try:
        engine = Engine(options.path, options.max_memory)
    except (EngineDirectoryInUse, EngineError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    try:
        places = (options.host, options.port, options.parent, options.guest_port)
        ended = asyncio.run(serve(engine, passwords, *places))
    except OSError as error:  # it names the address and the port
        sys.stderr.write(f"cannot listen on {options.host}:{options.port}: {error}\n")
        engine.close()
        return 1
    if not ended:
        # A statement hangs in the engine; parts are written atomically, so leaving is safe.
        sys.stderr.write("a statement did not end in time; leaving without closing the engine\n")
        sys.stderr.flush()
        os._exit(0)
    engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
