"""How both clients connect: address, key, time-outs, and what is asked again after a failure."""

from __future__ import annotations

import os
from dataclasses import dataclass

import httpx

from imagewire.client.errors import (
    ApiError,
    NotFoundError,
    TooManyRequestsError,
    UnavailableError,
    UnreachableError,
)

URL_VARIABLE = "IMAGEWIRE_URL"
KEY_VARIABLE = "IMAGEWIRE_KEY"
DEFAULT_URL = "http://127.0.0.1:8080"
_USUAL_PAUSE = 0.25
_LONGEST_PAUSE = 30.0
_SILENCE_SECONDS = 60.0
"""Without even a heartbeat a stream is taken for broken."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the API is, and how it is asked.

    Attributes:
        url: its address; else IMAGEWIRE_URL; else that of `imagewire up`.
        key: of api.keys; else IMAGEWIRE_KEY; none where the API has no keys.
        timeout: seconds for an answer, where a verb does not need more.
        retries: how often a GET is asked again after a broken connection, and any verb after 429.
    """

    url: str | None = None
    key: str | None = None
    timeout: float = 30.0
    retries: int = 2

    @property
    def address(self) -> str:
        return self.url or os.environ.get(URL_VARIABLE) or DEFAULT_URL

    def options(self) -> dict[str, object]:
        """Arguments of an httpx client."""
        key = self.key or os.environ.get(KEY_VARIABLE)
        headers = {"User-Agent": "imagewire-client"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        return {
            "base_url": self.address,
            "headers": headers,
            "timeout": httpx.Timeout(self.timeout, connect=min(self.timeout, 10.0)),
        }

    def pause(
        self, error: Exception, repeatable: bool, tries: int, patience: float = 0.0
    ) -> float | None:
        """Seconds after which to ask again; `None` if that is no use.

        Args:
            error: what came of it.
            repeatable: asking again changes nothing.
            tries: how often it was asked so far.
            patience: seconds for which to go on asking for what is not there yet.
        """
        if isinstance(error, NotFoundError) and patience > 0:
            return min(_USUAL_PAUSE, patience)
        if tries > self.retries:
            return None
        usual = min(_USUAL_PAUSE * 2**tries, _LONGEST_PAUSE)
        if isinstance(error, TooManyRequestsError):  # it was not begun
            return min(error.retry_after or usual, _LONGEST_PAUSE)
        if not repeatable:
            return None
        if isinstance(error, UnavailableError):
            away = error.status == httpx.codes.SERVICE_UNAVAILABLE
            return min(error.retry_after or usual, _LONGEST_PAUSE) if away else None
        return None if isinstance(error, ApiError) else usual

    @property
    def silence(self) -> httpx.Timeout:
        """Time-outs of a stream, which has heartbeats."""
        return httpx.Timeout(_SILENCE_SECONDS, connect=10.0)

    def named(self, error: Exception) -> Exception:
        """`error` as this package names it."""
        if isinstance(error, ApiError):
            return error
        found = UnreachableError(f"no answer from {self.address}: {type(error).__name__}: {error}")
        found.__cause__ = error
        return found

    def ended(self) -> UnreachableError:
        """A stream that has no end ended."""
        return UnreachableError(f"the stream of verdicts from {self.address} ended")
