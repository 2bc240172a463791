"""Fetches s3:, gs: and az: references through obstore, from the buckets that the settings name.

Credentials come from where each cloud's own tools look (environment, instance metadata); obstore
retries transient errors itself.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
import obstore.exceptions
import obstore.store

from streams.fetched import FetchError, shown
from streams.settings import FetchSettings


class ObjectFetcher:
    """One store a bucket, opened at its first use."""

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._allowed = frozenset(bucket.rstrip("/") for bucket in settings.buckets)
        self._stores: dict[str, Any] = {}

    async def fetch(self, uri: str) -> bytes:
        """The object that `uri` names. Raises `FetchError`."""
        try:
            parts = urlsplit(uri)
        except ValueError as error:
            raise FetchError("bad-uri", f"'{shown(uri)}' is no address: {error}") from error
        bucket = f"{parts.scheme.lower()}://{parts.netloc}"
        if bucket not in self._allowed:
            raise FetchError(
                "forbidden",
                f"'{shown(uri)}' is in a bucket that may not be read; add "
                f"'{shown(bucket)}' to fetch.buckets",
            )
        key = unquote(parts.path.lstrip("/"))
        if not key:
            raise FetchError("bad-uri", f"'{shown(uri)}' names a bucket but no object")
        try:
            if bucket not in self._stores:
                self._stores[bucket] = obstore.store.from_url(bucket)
            result = await obstore.get_async(self._stores[bucket], key)
            if result.meta["size"] > self._settings.max_bytes:
                raise FetchError(
                    "too-many-bytes",
                    f"'{shown(uri)}' has {result.meta['size']} bytes; at most "
                    f"{self._settings.max_bytes} (fetch.max_bytes)",
                )
            return bytes(await result.bytes_async())
        except (FileNotFoundError, obstore.exceptions.NotFoundError) as error:
            raise FetchError("not-found", f"'{shown(uri)}' is not there: {error}") from error
        except (
            obstore.exceptions.PermissionDeniedError,
            obstore.exceptions.UnauthenticatedError,
        ) as error:
            raise FetchError("forbidden", f"'{shown(uri)}' may not be read: {error}") from error
        except (obstore.exceptions.BaseError, OSError) as error:
            raise FetchError(
                "unreachable", f"'{shown(uri)}' cannot be fetched: {error}", transient=True
            ) from error
