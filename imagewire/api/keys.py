"""Who asks, and whether they may: keys with scopes, in `Authorization: Bearer KEY` only.

A key never stands in an address: those are written to logs and histories. Without any key
configured, which only a loopback address allows, whoever reaches the API may do everything; the
gate sees to it that web sites do not.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fastapi import Request, Security
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers

from imagewire.api.problems import Problem
from imagewire.api.settings import ApiKeyError, ApiKeySettings
from imagewire.settings import ConfigurationError


class Scope(StrEnum):
    """What a key opens."""

    PUBLISH = "publish"
    READ = "read"
    REVIEW = "review"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        name: of the key; `local` where no keys are configured.
        feeds: those that this caller may see and fill; None for all.
    """

    name: str
    scopes: frozenset[Scope]
    feeds: frozenset[str] | None = None

    def may(self, scope: Scope) -> bool:
        """Whether the caller has `scope`; admin has all."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def sees(self, feed: str) -> bool:
        """Whether images of `feed` may be shown to the caller."""
        return self.feeds is None or feed in self.feeds

    def require_feed(self, feed: str) -> None:
        """Raises `Problem` 403 unless the caller may see and fill `feed`."""
        if not self.sees(feed):
            raise Problem(
                403,
                "feed-not-allowed",
                "That is not allowed",
                f"the key '{self.name}' is confined to other feeds",
            )

    def require_all_feeds(self) -> None:
        """Raises `Problem` 403 where the caller is confined to feeds, for what spans all."""
        if self.feeds is not None:
            raise Problem(
                403,
                "feed-not-allowed",
                "That is not allowed",
                f"the key '{self.name}' is confined to some feeds, and this spans all of them",
            )


LOCAL = Caller("local", frozenset(Scope))
"""Whoever is on this machine, where no keys are configured."""


class Keys:
    """The configured keys.

    Raises:
        ConfigurationError: a key cannot be read, or two are the same.
    """

    def __init__(self, settings: Sequence[ApiKeySettings]) -> None:
        self._callers: list[tuple[bytes, Caller]] = []
        for each in settings:
            try:
                digest = _digest(each.secret())
            except ApiKeyError as error:
                raise ConfigurationError(str(error)) from None
            feeds = frozenset(each.feeds) if each.feeds else None
            caller = Caller(each.name, frozenset(map(Scope, each.scopes)), feeds)
            if any(digest == other for other, _ in self._callers):
                raise ConfigurationError(f"api.keys '{each.name}' has the key of another")
            self._callers.append((digest, caller))
        _require_apart([caller for _, caller in self._callers])

    def __bool__(self) -> bool:
        return bool(self._callers)

    def caller(self, headers: Headers) -> Caller | None:
        """Who sent a request with these headers; None if that is not known."""
        if not self._callers:
            return LOCAL
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        digest = _digest(given.strip())
        found = None
        # All are compared, and in constant time: how long it takes tells nothing.
        for known, caller in self._callers:
            if hmac.compare_digest(known, digest):
                found = caller
        return found


def _require_apart(callers: Sequence[Caller]) -> None:
    """Ids begin with their feed and a slash: those of `a/b` are also ids of `a`, so that a key for
    one could replace images of the other.

    Raises:
        ConfigurationError
    """
    named = {feed: caller for caller in callers for feed in caller.feeds or ()}
    for feed, inner in named.items():
        for other, outer in named.items():
            if feed.startswith(f"{other}/") and outer.feeds != inner.feeds:
                raise ConfigurationError(
                    f"api.keys '{outer.name}' is confined to the feed '{other}', and "
                    f"'{inner.name}' to '{feed}', whose ids begin alike; name one of the feeds "
                    "otherwise"
                )


def key_needed(headers: Mapping[str, str] | None = None) -> Problem:
    """401. `headers`: of the answer, besides what it needs."""
    return Problem(
        401,
        "key-needed",
        "A key is needed",
        "send a key of api.keys as Authorization: Bearer KEY",
        headers={"WWW-Authenticate": "Bearer", **(headers or {})},
    )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


_bearer = HTTPBearer(
    scheme_name="key",
    description="A key of api.keys. Not needed where none is configured.",
    auto_error=False,
)


def needs(*scopes: Scope) -> Callable[..., Awaitable[Caller]]:
    """A dependency that lets callers with all of `scopes` through, and returns who it is.

    The gate has found out who asks before.
    """

    async def check(request: Request, _: object = Security(_bearer)) -> Caller:
        caller: Caller | None = getattr(request.state, "caller", None)
        if caller is None:
            raise key_needed()
        missing = [scope.value for scope in scopes if not caller.may(scope)]
        if missing:
            raise Problem(
                403,
                "scope-needed",
                "That is not allowed",
                f"the key '{caller.name}' lacks the scope {', '.join(missing)}",
                scopes=missing,
            )
        return caller

    return check
