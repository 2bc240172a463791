"""Gets the bytes that an image reference names: http(s), file, data and object stores.

Everything about a reference is hostile until checked: where it points, how long it takes, how much
it sends. Each reference has one deadline for everything and one cap on bytes, enforced while the
bytes arrive. What cannot be fetched raises `FetchError`, which becomes that frame's dead letter.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import stat
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import stamina
from aiohttp.abc import AbstractResolver

from streams.addresses import AddressRules, CheckedResolver
from streams.fetch_http import HttpFetcher
from streams.fetch_object import ObjectFetcher
from streams.fetched import FetchError, shown
from streams.settings import FetchSettings


def _is_transient(error: Exception) -> bool:
    return isinstance(error, FetchError) and error.transient


class Fetcher:
    """Fetches references; the caller bounds how many at a time. An async context manager."""

    def __init__(self, settings: FetchSettings, resolver: AbstractResolver | None = None) -> None:
        """`resolver` looks names up, the system's by default; its answers are checked."""
        self._settings = settings
        rules = AddressRules(settings.allow_networks)
        self._http = HttpFetcher(settings, rules, CheckedResolver(rules, resolver))
        self._objects = ObjectFetcher(settings)
        self._schemes: dict[str, Callable[[str], Coroutine[Any, Any, bytes]]] = {
            "http": self._http.fetch,
            "https": self._http.fetch,
            "file": self._fetch_file,
            "data": self._fetch_data,
            "s3": self._objects.fetch,
            "gs": self._objects.fetch,
            "az": self._objects.fetch,
        }

    async def __aenter__(self) -> Fetcher:
        await self._http.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.close()

    async def fetch(self, uri: str) -> bytes:
        """The bytes that `uri` names.

        Raises:
            FetchError: they cannot be had; its reason is one of `bad-uri`, `forbidden`,
                `not-found`, `http-status`, `too-many-redirects`, `too-many-bytes`, `timeout`,
                `unreachable`, `cut-off`, `empty`.
        """
        scheme = uri.partition(":")[0].lower()
        if scheme not in self._schemes or scheme not in self._settings.schemes:
            allowed = ", ".join(sorted(self._settings.schemes))
            raise FetchError(
                "bad-uri", f"'{shown(uri)}' has no scheme that may be fetched; allowed: {allowed}"
            )
        try:
            async with asyncio.timeout(self._settings.timeout):
                content = await self._fetch_with_retries(self._schemes[scheme], uri)
        except TimeoutError as error:
            raise FetchError(
                "timeout",
                f"'{shown(uri)}' did not arrive within {self._settings.timeout:g} s "
                "(fetch.timeout)",
            ) from error
        if not content:
            raise FetchError("empty", f"'{shown(uri)}' holds 0 bytes")
        return content

    async def _fetch_with_retries(
        self,
        fetch: Callable[[str], Coroutine[Any, Any, bytes]],
        uri: str,
    ) -> bytes:
        async for attempt in stamina.retry_context(
            on=_is_transient, attempts=self._settings.attempts, timeout=None, wait_max=2.0
        ):
            with attempt:
                return await fetch(uri)
        raise AssertionError("stamina ends with a result or an error")

    async def _fetch_file(self, uri: str) -> bytes:
        try:
            parts = urlsplit(uri)
        except ValueError as error:
            raise FetchError("bad-uri", f"'{shown(uri)}' is no file: URI") from error
        if parts.netloc not in ("", "localhost"):
            raise FetchError(
                "bad-uri",
                f"'{shown(uri)}' names the host '{parts.netloc}'; write file:///path, with three "
                "slashes",
            )
        if not self._settings.file_roots:
            raise FetchError(
                "forbidden",
                f"'{shown(uri)}': file: references are off; name the folders that may be read in "
                "fetch.file_roots",
            )
        path = Path(unquote(parts.path))
        if not path.is_absolute():
            raise FetchError("bad-uri", f"'{shown(uri)}' is no absolute path; write file:///path")
        return await asyncio.to_thread(self._read_file, path)

    def _read_file(self, path: Path) -> bytes:
        outside = FetchError(
            "forbidden", f"the file {path} lies outside the folders in fetch.file_roots"
        )
        try:
            # Symbolic links are resolved before the check, so that a link inside a root cannot
            # lead out of it. Whether something outside is there at all is nobody's business: the
            # answer is the same either way.
            target = path.resolve()
        except (OSError, ValueError, RuntimeError) as error:
            named = Path(os.path.normpath(path))
            if not any(named.is_relative_to(root) for root in self._settings.file_roots):
                raise outside from error
            raise FetchError("not-found", f"the file {path} cannot be read: {error}") from error
        if not any(target.is_relative_to(root) for root in self._settings.file_roots):
            raise outside
        limit = self._settings.max_bytes
        try:
            # Without O_NONBLOCK opening a pipe waits for its writer, for ever if need be.
            descriptor = os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise FetchError("forbidden", f"{path} is no regular file")
                with os.fdopen(descriptor, "rb", closefd=False) as file:
                    # One byte more than the limit shows that there is more.
                    content = file.read(min(status.st_size, limit) + 1)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise FetchError("not-found", f"the file {path} cannot be read: {error}") from error
        if len(content) > limit:
            raise FetchError(
                "too-many-bytes", f"the file {path} has more than {limit} bytes (fetch.max_bytes)"
            )
        return content

    async def _fetch_data(self, uri: str) -> bytes:
        header, comma, body = uri.partition(",")
        if not comma:
            raise FetchError("bad-uri", "the data: reference has no comma before its data")
        # base64 needs 4 characters for 3 bytes, percent-encoding up to 3 for 1.
        if len(body) > 3 * self._settings.max_bytes:
            raise FetchError("too-many-bytes", "the data: reference is too long (fetch.max_bytes)")
        try:
            if header.lower().endswith(";base64"):
                content = base64.b64decode(unquote(body), validate=True)
            else:
                content = unquote_to_bytes(body)
        except (binascii.Error, ValueError) as error:
            raise FetchError("bad-uri", f"the data: reference is malformed: {error}") from error
        if len(content) > self._settings.max_bytes:
            raise FetchError(
                "too-many-bytes",
                f"the data: reference holds {len(content)} bytes; at most "
                f"{self._settings.max_bytes} (fetch.max_bytes)",
            )
        return content
