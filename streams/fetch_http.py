"""Fetches http(s) references: every hop checked, every byte counted, nothing followed blindly.

Redirects are followed by hand so that each target passes the same checks as the first address.
Cookies, credentials and proxies from the environment are never used.
"""

from __future__ import annotations

import asyncio
import ssl
from http import HTTPStatus
from urllib.parse import SplitResult, urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver

from streams.addresses import AddressRules, ForbiddenAddressError
from streams.fetched import FetchError
from streams.settings import FetchSettings

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK = 64 * 1024


class HttpFetcher:
    """One pool of connections, bounded per host."""

    def __init__(
        self, settings: FetchSettings, rules: AddressRules, resolver: AbstractResolver
    ) -> None:
        self._settings = settings
        self._rules = rules
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        connector = aiohttp.TCPConnector(
            limit=self._settings.concurrency,
            limit_per_host=self._settings.per_host,
            resolver=self._resolver,
            ttl_dns_cache=30,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=self._settings.timeout),
            headers={"User-Agent": "imagewire", "Accept": "image/*", "Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def fetch(self, uri: str, parts: SplitResult) -> bytes:
        """The body behind `uri`. Raises `FetchError`; `TimeoutError` is left to the caller."""
        if self._session is None:
            raise RuntimeError("HttpFetcher.open() was not called")
        for _ in range(self._settings.max_redirects + 1):
            self._check(uri, parts)
            try:
                async with self._session.get(uri, allow_redirects=False) as response:
                    if response.status not in _REDIRECTS:
                        return await self._body(uri, response)
                    location = response.headers.get("Location", "")
            except FetchError:
                raise
            except TimeoutError:
                raise
            except ForbiddenAddressError as error:
                raise FetchError("forbidden", str(error)) from error
            except aiohttp.ClientConnectorError as error:
                if isinstance(error.os_error, ForbiddenAddressError):
                    raise FetchError("forbidden", str(error.os_error)) from error
                raise FetchError(
                    "unreachable", f"'{uri[:200]}' cannot be reached: {error}", transient=True
                ) from error
            except aiohttp.ClientPayloadError as error:
                raise FetchError(
                    "cut-off", f"'{uri[:200]}' ended before its length: {error}", transient=True
                ) from error
            except (aiohttp.ClientError, ssl.SSLError, OSError, ValueError) as error:
                raise FetchError(
                    "unreachable", f"'{uri[:200]}' cannot be fetched: {error}", transient=True
                ) from error
            uri = urljoin(uri, location)
            parts = urlsplit(uri)
        raise FetchError(
            "too-many-redirects",
            f"'{uri[:200]}' is behind more than {self._settings.max_redirects} redirects "
            "(fetch.max_redirects)",
        )

    def _check(self, uri: str, parts: SplitResult) -> None:
        if parts.scheme.lower() not in {"http", "https"} & self._settings.schemes:
            raise FetchError("forbidden", f"a redirect leads to '{uri[:200]}', which is no http(s)")
        try:
            port = parts.port
        except ValueError as error:
            raise FetchError("bad-uri", f"'{uri[:200]}' has a bad port: {error}") from error
        host = parts.hostname
        if not host:
            raise FetchError("bad-uri", f"'{uri[:200]}' names no host")
        if parts.username is not None or parts.password is not None:
            raise FetchError("forbidden", "the reference carries a user name or password")
        if port is None:
            port = 443 if parts.scheme.lower() == "https" else 80
        if port not in self._settings.ports:
            ports = ", ".join(map(str, sorted(self._settings.ports)))
            raise FetchError(
                "forbidden", f"'{uri[:200]}' names port {port}; fetch.ports allows {ports}"
            )
        try:
            self._rules.check_literal(host)
        except ForbiddenAddressError as error:
            raise FetchError("forbidden", str(error)) from error

    async def _body(self, uri: str, response: aiohttp.ClientResponse) -> bytes:
        status = response.status
        if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            raise FetchError("not-found", f"'{uri[:200]}' answered {status}")
        if status != HTTPStatus.OK:
            transient = status == HTTPStatus.TOO_MANY_REQUESTS or status >= 500
            raise FetchError("http-status", f"'{uri[:200]}' answered {status}", transient=transient)
        limit = self._settings.max_bytes
        if (response.content_length or 0) > limit:
            raise FetchError(
                "too-many-bytes",
                f"'{uri[:200]}' announces {response.content_length} bytes; at most {limit} "
                "(fetch.max_bytes)",
            )
        content = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            content += chunk
            if len(content) > limit:
                raise FetchError(
                    "too-many-bytes",
                    f"'{uri[:200]}' sends more than {limit} bytes (fetch.max_bytes)",
                )
            await asyncio.sleep(0)
        return bytes(content)
