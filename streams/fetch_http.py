"""Fetches http(s) references: every hop checked, every byte counted, nothing followed blindly.

Redirects are followed by hand so that each target passes the same checks as the first address.
Cookies, credentials and proxies from the environment are never used.
"""

from __future__ import annotations

import asyncio
import ssl
from http import HTTPStatus

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver

from streams.addresses import AddressRules, ForbiddenAddressError
from streams.fetched import FetchError, shown
from streams.settings import FetchSettings

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
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

    async def fetch(self, uri: str) -> bytes:
        """The body behind `uri`. Raises `FetchError`; `TimeoutError` is left to the caller."""
        if self._session is None:
            raise RuntimeError("HttpFetcher.open() was not called")
        url = self._parse(uri)
        for _ in range(self._settings.max_redirects + 1):
            self._check(url)
            name = shown(str(url))
            try:
                async with self._session.get(url, allow_redirects=False) as response:
                    location = response.headers.get("Location")
                    if response.status not in _REDIRECTS or location is None:
                        return await self._body(name, response)
            except (FetchError, TimeoutError):
                raise
            except ForbiddenAddressError as error:
                raise FetchError("forbidden", str(error)) from error
            except aiohttp.ClientConnectorError as error:
                if isinstance(error.os_error, ForbiddenAddressError):
                    raise FetchError("forbidden", str(error.os_error)) from error
                raise FetchError(
                    "unreachable", f"'{name}' cannot be reached: {error}", transient=True
                ) from error
            except aiohttp.ClientPayloadError as error:
                raise FetchError(
                    "cut-off", f"'{name}' ended before its length", transient=True
                ) from error
            except aiohttp.ClientResponseError as error:
                # Its text holds the whole address.
                raise FetchError(
                    "unreachable", f"'{name}' speaks no HTTP: {error.message}", transient=True
                ) from error
            except (aiohttp.ClientError, ssl.SSLError, OSError, ValueError) as error:
                raise FetchError(
                    "unreachable",
                    f"'{name}' cannot be fetched ({type(error).__name__}): {error}",
                    transient=True,
                ) from error
            url = self._parse(location, url)
        raise FetchError(
            "too-many-redirects",
            f"'{shown(uri)}' is behind more than {self._settings.max_redirects} redirects "
            "(fetch.max_redirects)",
        )

    @staticmethod
    def _parse(uri: str, base: yarl.URL | None = None) -> yarl.URL:
        """The address exactly as the client will use it: were another parser to check it, the two
        could be made to see different hosts."""
        try:
            url = yarl.URL(uri)
            url = url if base is None else base.join(url)
            url.port  # noqa: B018 - is read lazily, and may be no number
        except (ValueError, IndexError) as error:
            # IndexError: what yarl 1.x raises for a bracket after an empty host.
            raise FetchError("bad-uri", f"'{shown(uri)}' is no address") from error
        return url

    def _check(self, url: yarl.URL) -> None:
        name = shown(str(url))
        if url.scheme not in {"http", "https"} & self._settings.schemes:
            raise FetchError("forbidden", f"a redirect leads to '{name}', which is no http(s)")
        host = url.raw_host
        if not host:
            raise FetchError("bad-uri", f"'{name}' names no host")
        if url.user is not None or url.password is not None:
            raise FetchError("forbidden", f"'{name}' carries a user name or password")
        if url.port not in self._settings.ports:
            ports = ", ".join(map(str, sorted(self._settings.ports)))
            raise FetchError(
                "forbidden", f"'{name}' names port {url.port}; fetch.ports allows {ports}"
            )
        try:
            self._rules.check_literal(host)
        except ForbiddenAddressError as error:
            raise FetchError("forbidden", str(error)) from error

    async def _body(self, name: str, response: aiohttp.ClientResponse) -> bytes:
        status = response.status
        if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            raise FetchError("not-found", f"'{name}' answered {status}")
        if status != HTTPStatus.OK:
            raise FetchError(
                "http-status",
                f"'{name}' answered {status}",
                transient=status in _TRANSIENT or status >= 500,
            )
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            # It was told that only plain bytes are taken, and a small compressed body can be
            # gigabytes of image.
            raise FetchError(
                "http-status",
                f"'{name}' answers with Content-Encoding '{encoding[:40]}' although identity was "
                "asked for; serve the image as it is",
            )
        limit = self._settings.max_bytes
        if (response.content_length or 0) > limit:
            raise FetchError(
                "too-many-bytes",
                f"'{name}' announces {response.content_length} bytes; at most {limit} "
                "(fetch.max_bytes)",
            )
        content = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            content += chunk
            if len(content) > limit:
                raise FetchError(
                    "too-many-bytes", f"'{name}' sends more than {limit} bytes (fetch.max_bytes)"
                )
            # A fast peer must not keep the loop to itself.
            await asyncio.sleep(0)
        return bytes(content)
