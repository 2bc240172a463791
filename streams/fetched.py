"""How fetching fails: the error that every kind of reference shares, and how it names one."""

from __future__ import annotations

import re

_LONGEST = 200
_SECRET_PARTS = re.compile(r"(?P<user>//[^/?#]*@)|(?P<query>[?#].*)", re.DOTALL)


def shown(uri: str) -> str:
    """`uri` as it may stand in errors and logs, which more people read than may use it.

    Queries often hold what gives access (pre-signed addresses), and so does the part before an @;
    both are replaced by an ellipsis. The image of a data: reference is left out.
    """
    scheme, colon, rest = uri.partition(":")
    if colon and scheme.lower() == "data":
        return f"data:{rest.partition(',')[0][:60]},…"
    masked = _SECRET_PARTS.sub(lambda found: "//…@" if found["user"] else found[0][0] + "…", uri)
    return masked if len(masked) <= _LONGEST else masked[:_LONGEST] + "…"


class FetchError(Exception):
    """A reference cannot be fetched: `reason` for machines, the message for people.

    Attributes:
        transient: the same reference may work later (refused, reset, timed out, 429, 5xx).
    """

    def __init__(self, reason: str, detail: str, *, transient: bool = False) -> None:
        super().__init__(detail)
        self.reason = reason
        self.transient = transient
