"""Errors as RFC 9457 has them: every answer that is none is `application/problem+json`.

    {"type": "urn:imagewire:problem:unknown-image", "title": "There is no such image",
     "status": 404, "detail": "…", "instance": "the request's id"}

What is told is written for whoever asked; what the inside of the service says goes to the log,
under the request's id.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from sinks.clickhouse.reader import QueryError
from sinks.sink import AccessSinkError, PermanentSinkError, TransientSinkError

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 2
"""How long a client is asked to wait for a store that is away."""
_TYPE = "urn:imagewire:problem:"
_AUTHENTICATION_FAILED = 516
"""ClickHouse's code for a wrong user or password."""
_NOT_READY_CODES = frozenset({60, 81})
"""ClickHouse's unknown table and database: no worker has made them yet."""
_TITLES = {
    400: "The request cannot be read",
    401: "A key is needed",
    403: "That is not allowed",
    404: "There is nothing here",
    405: "This address takes other methods",
    406: "No such representation",
    413: "The request is too large",
    415: "This kind of body is not taken",
    422: "The request is not valid",
}


class Problem(HTTPException):
    """An answer that says what is wrong. Raised anywhere while a request is answered.

    Args:
        status: of HTTP.
        kind: for programs, stable: lower case and hyphens, such as `unknown-image`.
        title: for people, the same for every problem of this kind.
        detail: for people: what was wrong this time, where, and what to do.
        headers: of the answer.
        extra: more members of the answer.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        title: str,
        detail: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(status, detail or title, dict(headers) if headers else None)
        self.status = status
        self.kind = kind
        self.title = title
        self.extra = extra

    def __str__(self) -> str:
        return f"{self.status} {self.kind}: {self.detail}"

    def response(self, request_id: str) -> Response:
        """The answer that this problem is."""
        content = {
            "type": _TYPE + self.kind,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": request_id,
            **self.extra,
        }
        return Response(
            msgspec.json.encode(without_halves(content)),
            self.status,
            headers=self.headers,
            media_type=MEDIA_TYPE,
        )


def store_is_away(store: str, detail: str = "") -> Problem:
    """503: `store` (Kafka, ClickHouse, Qdrant) does not answer now."""
    return Problem(
        503,
        "store-away",
        "A store does not answer",
        detail or f"{store} does not answer at the moment; ask again",
        headers={"Retry-After": str(RETRY_SECONDS)},
        store=store,
    )


def invalid(detail: str, *, where: str | None = None) -> Problem:
    """422 for what the declared types cannot say; `where` names the parameter or field."""
    errors = [] if where is None else [{"where": where, "what": detail}]
    return Problem(422, "invalid-request", _TITLES[422], detail, errors=errors)


def problem_of_query(error: QueryError) -> Problem | None:
    """What a failed query of the service's own is to whoever asked; None: a defect."""
    if error.transient:
        logger.warning("ClickHouse: %s", error)
        return store_is_away("ClickHouse")
    if error.code in _NOT_READY_CODES:
        return store_is_away(
            "ClickHouse", "ClickHouse has no tables yet: a worker makes them at its first start"
        )
    if error.code == _AUTHENTICATION_FAILED:
        return _refusing("ClickHouse", error)
    return None


def _refusing(store: str, error: Exception) -> Problem:
    logger.error("%s lets nobody in: %s", store, error)
    return store_is_away(store, f"{store} does not let the API in; the log of the service says why")


def request_id_of(request: Request) -> str:
    """The id under which this request stands in the log."""
    return str(getattr(request.state, "request_id", ""))


def answer_with_problems(app: FastAPI) -> None:
    """Have every error of `app` answered as a problem; what is unforeseen is left to the gate."""
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(QueryError, _on_query)
    app.add_exception_handler(TransientSinkError, _on_away)
    app.add_exception_handler(PermanentSinkError, _on_refused)
    app.add_exception_handler(UnicodeEncodeError, _on_half_characters)


def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, Problem):
        problem = error
    else:  # the framework's own: an unknown address, a method, a body that is no JSON
        status = error.status_code
        problem = Problem(
            status,
            _kind(status),
            _TITLES.get(status, error.detail),
            error.detail,
            headers=error.headers,
        )
    return problem.response(request_id_of(request))


def _kind(status: int) -> str:
    words = {400: "malformed-request", 404: "not-found", 405: "method-not-allowed"}
    return words.get(status, f"http-{status}")


def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # Never what was sent: it may be a secret, and it may be 4 MB.
    errors = [
        {"where": _where(found.get("loc", ())), "what": str(found.get("msg", ""))}
        for found in error.errors()[:50]
    ]
    detail = "; ".join(f"{each['where']}: {each['what']}" for each in errors[:5])
    problem = Problem(422, "invalid-request", _TITLES[422], detail, errors=errors)
    return problem.response(request_id_of(request))


def _where(location: Any) -> str:
    return re.sub(r"[^\x20-\x7e]", "?", ".".join(str(part)[:80] for part in location))[:200]


def _on_query(request: Request, error: Exception) -> Response:
    assert isinstance(error, QueryError)
    problem = problem_of_query(error)
    if problem is None:
        raise error
    return problem.response(request_id_of(request))


def _on_away(request: Request, error: Exception) -> Response:
    logger.warning("%s", error)
    return store_is_away(_store_named(str(error))).response(request_id_of(request))


def _on_refused(request: Request, error: Exception) -> Response:
    if isinstance(error, AccessSinkError):
        return _refusing(_store_named(str(error)), error).response(request_id_of(request))
    if "there is no such collection" in str(error):  # of Qdrant, before the first image
        problem = store_is_away("Qdrant", "no image has been stored in Qdrant yet")
        return problem.response(request_id_of(request))
    raise error


def _store_named(text: str) -> str:
    return next((name for name in ("ClickHouse", "Qdrant") if name in text), "Kafka")


def _on_half_characters(request: Request, error: Exception) -> Response:
    # JSON can name one half of a surrogate pair, which no store can hold.
    problem = Problem(
        422,
        "not-unicode",
        "A text is no Unicode",
        "a text in the request holds half a character (an unpaired surrogate); send whole ones",
    )
    return problem.response(request_id_of(request))


def without_halves(value: Any) -> Any:
    """`value` with halves of characters replaced by `?`: they cannot be encoded."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {without_halves(key): without_halves(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_halves(item) for item in value]
    return value
