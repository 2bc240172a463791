"""What can go wrong between a program and the API.

ImagewireError
├── UnreachableError            nothing answers, or the connection broke
└── ApiError                    the API answered with a problem
    ├── InvalidRequestError     400, 413, 415, 422: what was sent cannot be used
    │   └── SqlError            ClickHouse refused a statement: its code and message
    ├── NotAllowedError         401, 403: a key is missing, or does not open this
    ├── NotFoundError           404
    ├── TooManyRequestsError    429: come again after `retry_after` seconds
    └── UnavailableError        5xx: a store is away, or there is a defect
"""

from __future__ import annotations

from typing import Any

import httpx
import msgspec

_PREFIX = "urn:imagewire:problem:"
_KNOWN = frozenset({"type", "title", "status", "detail", "instance"})


class ImagewireError(Exception):
    """Every error of this client."""


class UnreachableError(ImagewireError):
    """Nothing answers at the address, or the connection broke; the message says where."""


class ApiError(ImagewireError):
    """The API answered with a problem.

    Attributes:
        status: of HTTP.
        kind: for programs, stable, such as `unknown-image`.
        title: for people, the same for every problem of this kind.
        detail: for people: what was wrong this time, and what to do.
        request_id: under which the API's log has more.
        retry_after: seconds after which to come again, if the API says so.
        extra: the problem's further members, such as `errors`.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        title: str,
        detail: str,
        request_id: str = "",
        retry_after: float | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{status} {kind}: {detail or title}")
        self.status = status
        self.kind = kind
        self.title = title
        self.detail = detail
        self.request_id = request_id
        self.retry_after = retry_after
        self.extra = extra or {}


class InvalidRequestError(ApiError):
    """What was sent cannot be used; `extra["errors"]` lists where and why."""


class SqlError(InvalidRequestError):
    """A statement was refused or failed."""

    @property
    def code(self) -> int | None:
        """ClickHouse's error number; `None` if the statement was not let through to it."""
        code: int | None = self.extra.get("code")
        return code

    @property
    def message(self) -> str:
        """ClickHouse's own words."""
        return str(self.extra.get("message") or self.detail)


class NotAllowedError(ApiError):
    """A key is missing, or does not open this."""


class NotFoundError(ApiError):
    """There is no such thing."""


class TooManyRequestsError(ApiError):
    """Come again after `retry_after` seconds."""


class UnavailableError(ApiError):
    """A store is away, too much is asked at once, or there is a defect."""


_BY_STATUS: dict[int, type[ApiError]] = {
    401: NotAllowedError,
    403: NotAllowedError,
    404: NotFoundError,
    429: TooManyRequestsError,
}


def error_of(response: httpx.Response) -> ApiError:
    """What an answer says that is none. Its body must have been read."""
    try:
        content = msgspec.json.decode(response.content)
    except msgspec.MsgspecError:
        content = None
    if not isinstance(content, dict):  # a proxy's page
        content = {"title": response.reason_phrase, "detail": response.text[:500]}
    kind = str(content.get("type", "")).removeprefix(_PREFIX) or f"http-{response.status_code}"
    status = response.status_code
    error = UnavailableError if status >= 500 else _BY_STATUS.get(status, InvalidRequestError)
    if kind in ("sql", "sql-refused"):
        error = SqlError
    return error(
        status,
        kind,
        str(content.get("title", "")),
        str(content.get("detail", "")),
        str(content.get("instance", response.headers.get("X-Request-Id", ""))),
        _seconds(response.headers.get("Retry-After")),
        {name: value for name, value in content.items() if name not in _KNOWN},
    )


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() else None


def broken_result(message: str) -> SqlError:
    """A result that failed after it had begun to be sent."""
    return SqlError(200, "sql", "The result broke off", message, extra={"message": message})
