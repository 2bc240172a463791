"""Keeps web sites away from an API without keys.

A browser on this machine reaches the loopback address for any page that it shows. A page may have
its own name resolve to 127.0.0.1 (DNS rebinding), so the name that was asked for must be one of the
loopback address's; and it may send requests whose answers it cannot read but whose effects it
wants, so what comes from another origin is refused. With keys neither works: a page has none.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from imagewire.api.problems import Problem
from imagewire.api.settings import is_loopback


class OwnHosts:
    """Checks requests of an API that has no keys."""

    def __init__(self, named: Iterable[str]) -> None:
        self._named = frozenset(name.lower().rstrip(".") for name in named)

    def check(self, headers: Headers) -> None:
        """Raises `Problem` 421 or 403 for a request that a web site of others may have caused."""
        host = headers.get("host", "")
        if not self._is_own(host):
            raise Problem(
                421,
                "unknown-host",
                "This is not the host that was asked for",
                "without api.keys the API answers to 127.0.0.1, localhost and [::1] only; name "
                "others in api.hosts, or configure keys",
            )
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != host.lower():
            raise _foreign()
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not (
            # Following a link to the console is no attack; framing it is refused elsewhere.
            headers.get("sec-fetch-mode") == "navigate"
            and headers.get("sec-fetch-dest") == "document"
        ):
            raise _foreign()

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        name = name.lower().rstrip(".")
        return is_loopback(name) or name in self._named


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _foreign() -> Problem:
    return Problem(
        403,
        "foreign-origin",
        "That is not allowed",
        "the request comes from a page of another origin; without api.keys only the console's own "
        "pages may ask",
    )
