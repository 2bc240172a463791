"""The API's verbs as values: what to send, and how to read the answer.

Both clients are made of these, so that what a verb sends is written once; a client only says how a
call is made.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from imagewire.client import models
from imagewire.client.arguments import (
    ImageFilters,
    ListSettings,
    Moment,
    Picture,
    PublishOptions,
    Reference,
    SearchFilters,
    TrialOptions,
)
from imagewire.client.errors import UnreachableError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request.

    Attributes:
        read: makes the answer of the response, whose body has been read.
        patience: seconds for which to go on asking for what is not there yet.
        repeatable: it may be sent again after a failure.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    files: Mapping[str, Any] | None = None
    form: Mapping[str, str] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    patience: float = 0.0

    @property
    def repeatable(self) -> bool:
        return self.method == "GET"

    def arguments(self) -> dict[str, Any]:
        """As httpx wants it."""
        arguments: dict[str, Any] = {
            "params": {name: value for name, value in self.params.items() if value is not None},
            "headers": dict(self.headers),
        }
        if self.json is not None:
            arguments["content"] = msgspec.json.encode(self.json)
            arguments["headers"]["Content-Type"] = "application/json"
        if self.files is not None:
            arguments |= {"files": self.files, "data": dict(self.form or {})}
        if self.timeout is not None:
            arguments["timeout"] = self.timeout
        return arguments


def publish(
    picture: Picture | None, uri: str | None, wait: float, options: PublishOptions
) -> Call[models.Published]:
    """Publish a picture or a reference; wait so many seconds for what is found."""
    if (picture is None) == (uri is None):
        raise ValueError("give a picture or a uri, and not both")
    params = {"wait": f"{wait:g}s"} if wait else {}
    read = _into(models.Published)
    timeout = wait + 30.0 if wait else None
    fields: dict[str, Any] = dict(options)
    if "captured_at" in options:
        fields["captured_at"] = moment(options["captured_at"])
    if picture is None:
        body = fields | {"uri": uri}
        return Call("POST", "/v1/images", read, params, json=body, timeout=timeout)
    if "metadata" in fields:
        fields["metadata"] = msgspec.json.encode(fields["metadata"]).decode()
    name = picture.name if isinstance(picture, Path) else "picture"
    content = picture.read_bytes() if isinstance(picture, Path) else picture
    files = {"picture": (name, content, "application/octet-stream")}
    return Call("POST", "/v1/images", read, params, files=files, form=fields, timeout=timeout)


def publish_many(references: Sequence[Reference]) -> Call[list[models.Published]]:
    """Publish references, all or, if one is wrong, none."""
    into = _into(models.PublishedImages)
    body = {"images": list(references)}
    return Call("POST", "/v1/images:batch", lambda response: into(response).images, json=body)


def image(image_id: str, feed: str | None, wait: float) -> Call[models.ImageDetail]:
    """Everything known of one image."""
    read = _into(models.ImageDetail)
    return Call("GET", _image(image_id), read, {"feed": feed}, patience=wait)


def image_page(filters: ImageFilters, cursor: str | None, limit: int) -> Call[models.ImagePage]:
    """A page of images, newest first."""
    params = _moments(filters) | {"cursor": cursor, "limit": limit}
    return Call("GET", "/v1/images", _into(models.ImagePage), params)


def picture(
    image_id: str, kind: Literal["picture", "annotated", "explain"], **params: Any
) -> Call[bytes]:
    """A WebP of an image."""
    asked = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in params.items()
    }
    return Call("GET", f"{_image(image_id)}/{kind}", lambda response: response.content, asked)


def search(
    picture: Picture | None,
    image_id: str | None,
    vector: Sequence[float] | None,
    text: str | None,
    filters: SearchFilters,
) -> Call[models.SearchAnswer]:
    """Images that look alike."""
    fields = _moments(filters)
    ways = {"image_id": image_id, "vector": vector, "text": text}
    fields |= {name: value for name, value in ways.items() if value is not None}
    if picture is not None:
        content = picture.read_bytes() if isinstance(picture, Path) else picture
        fields["picture"] = base64.b64encode(content).decode()
    read = _into(models.SearchAnswer)
    return Call("POST", "/v1/search", read, json=fields, timeout=120.0)


def duplicates(
    since: Moment, until: Moment, feed: str | None, threshold: float | None
) -> Call[models.DuplicatesAnswer]:
    """Groups of images that are nearly the same picture."""
    asked = {
        "since": moment(since),
        "until": moment(until),
        "feed": feed,
        "threshold": threshold,
    }
    body = {name: value for name, value in asked.items() if value is not None}
    read = _into(models.DuplicatesAnswer)
    return Call("POST", "/v1/duplicates", read, json=body, timeout=120.0)


def feeds() -> Call[list[models.Feed]]:
    """All feeds, those with the latest images first."""
    into = _into(models.Feeds)
    return Call("GET", "/v1/feeds", lambda response: into(response).feeds)


def sql(
    query: str, params: Mapping[str, Any] | None, max_rows: int | None
) -> Call[models.SqlResult]:
    """The result of one statement that reads."""
    return _sql(query, params, max_rows, "json", _into(models.SqlResult))


def sql_bytes(
    query: str, params: Mapping[str, Any] | None, max_rows: int | None, output: str
) -> Call[bytes]:
    """The same as csv, arrow or parquet."""
    return _sql(query, params, max_rows, output, lambda response: response.content)


def _sql(
    query: str,
    params: Mapping[str, Any] | None,
    max_rows: int | None,
    output: str,
    read: Callable[[httpx.Response], T],
) -> Call[T]:
    body: dict[str, Any] = {"query": query, "params": dict(params or {}), "format": output}
    if max_rows is not None:
        body["max_rows"] = max_rows
    return Call("POST", "/v1/sql", read, json=body, timeout=90.0)


def sql_schema() -> Call[models.SqlSchema]:
    """The views and their columns."""
    return Call("GET", "/v1/sql/schema", _into(models.SqlSchema))


def review_queue(
    feeds: Sequence[str], why: str | None, cursor: str | None, limit: int
) -> Call[models.ReviewQueue]:
    """A page of what waits for people, the longest waiting first; none is claimed."""
    params = {"feed": list(feeds), "why": why, "cursor": cursor, "limit": limit}
    return Call("GET", "/v1/review/queue", _into(models.ReviewQueue), params)


def review_next(
    feeds: Sequence[str], why: str | None, skip: Sequence[str], reviewer: str | None
) -> Call[models.NextImage]:
    """The image to decide now, claimed."""
    params = {"feed": list(feeds), "why": why, "skip": list(skip), "reviewer": reviewer}
    return Call("GET", "/v1/review/next", _into(models.NextImage), params)


def decide(
    decisions: Sequence[tuple[str, str]],
    reason: str,
    labels: Sequence[str],
    reviewer: str | None,
) -> Call[models.Decisions]:
    """Decide over images."""
    made = [
        {"image_id": image_id, "decision": decision, "reason": reason, "labels": list(labels)}
        for image_id, decision in decisions
    ]
    body = {"decisions": made, "reviewer": reviewer}
    return Call("POST", "/v1/review/decisions", _into(models.Decisions), json=body)


def undo(image_ids: Sequence[str], reviewer: str | None) -> Call[list[models.Decision]]:
    """Take decisions back."""
    into = _into(models.Withdrawn)
    body = {"image_ids": list(image_ids), "reviewer": reviewer}
    return Call("POST", "/v1/review/undo", lambda response: into(response).withdrawn, json=body)


def review_stats() -> Call[models.ReviewStatistics]:
    """How people and rules agree."""
    return Call("GET", "/v1/review/stats", _into(models.ReviewStatistics))


def policy(hours: int) -> Call[models.Policy]:
    """The policy in force, and what its rules do."""
    return Call("GET", "/v1/policy", _into(models.Policy), {"hours": hours})


def check_policy(text: str) -> Call[models.CheckedPolicy]:
    """Whether workers could use a policy."""
    return Call("POST", "/v1/policy/check", _into(models.CheckedPolicy), json={"text": text})


def diff_policy(text: str, since: Moment, options: TrialOptions) -> Call[models.PolicyDiff]:
    """What a policy would have decided."""
    body = {"text": text, "since": moment(since), **options}
    read = _into(models.PolicyDiff)
    return Call("POST", "/v1/policy/diff", read, json=body, timeout=180.0)


def put_policy(text: str) -> Call[models.PublishedPolicy]:
    """Put a policy in force."""
    return Call("PUT", "/v1/policy", _into(models.PublishedPolicy), json={"text": text})


def withdraw_policy() -> Call[models.PublishedPolicy]:
    """Send the workers back to the policy in their settings."""
    return Call("DELETE", "/v1/policy", _into(models.PublishedPolicy))


def list_models(hours: int) -> Call[models.Models]:
    """The models that worked, and how they drift."""
    return Call("GET", "/v1/models", _into(models.Models), {"hours": hours})


def banlists() -> Call[list[models.Banlist]]:
    """Every list of banned images."""
    into = _into(models.Banlists)
    return Call("GET", "/v1/bans", lambda response: into(response).lists)


def set_banlist(name: str, settings: ListSettings) -> Call[models.Banlist]:
    """Make a list, or change its settings."""
    body = {"name": name, **settings}
    return Call("POST", "/v1/bans", _into(models.Banlist), json=body)


def ban_entries(
    name: str, kind: str | None, cursor: str | None, limit: int
) -> Call[models.BanEntries]:
    """A page of what is on a list."""
    params = {"kind": kind, "cursor": cursor, "limit": limit}
    return Call("GET", f"/v1/bans/{_quoted(name)}", _into(models.BanEntries), params)


def ban(
    name: str,
    image_ids: Sequence[str],
    pictures: Sequence[Picture],
    pdq: Sequence[str],
    sha256: Sequence[str],
    exemplar: bool,
    comment: str,
) -> Call[models.AddedBans]:
    """Ban images."""
    contents = [each.read_bytes() if isinstance(each, Path) else each for each in pictures]
    body = {
        "image_ids": list(image_ids),
        "pictures": [base64.b64encode(content).decode() for content in contents],
        "pdq": list(pdq),
        "sha256": list(sha256),
        "exemplar": exemplar,
        "comment": comment,
    }
    path = f"/v1/bans/{_quoted(name)}"
    return Call("POST", path, _into(models.AddedBans), json=body, timeout=120.0)


def unban(name: str, kind: str, digest: str) -> Call[models.Removed]:
    """Take an entry away."""
    path = f"/v1/bans/{_quoted(name)}/{_quoted(kind)}/{_quoted(digest)}"
    return Call("DELETE", path, _into(models.Removed))


def remove_banlist(name: str) -> Call[models.Removed]:
    """Take a list away, with all that is on it."""
    return Call("DELETE", f"/v1/bans/{_quoted(name)}", _into(models.Removed))


def stats(minutes: int, feed: str | None) -> Call[models.Statistics]:
    """Throughput, latency, failures, and what waits."""
    params = {"minutes": minutes, "feed": feed}
    return Call("GET", "/v1/stats", _into(models.Statistics), params)


def moment(value: Moment) -> str:
    """RFC 3339; a time without a zone is UTC."""
    if isinstance(value, str):
        return value
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()


def _moments(filters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: moment(value) if name in ("since", "until") else value
        for name, value in filters.items()
        if value is not None
    }


def _image(image_id: str) -> str:
    return f"/v1/images/{_quoted(image_id)}"


def _quoted(text: str) -> str:
    # Dots too, or a path of only dots would be resolved away.
    quoted = quote(text, safe="")
    return quoted.replace(".", "%2E") if set(text) <= {"."} else quoted


def _into(kind: type[T]) -> Callable[[httpx.Response], T]:
    decode = msgspec.json.Decoder(kind).decode

    def read(response: httpx.Response) -> T:
        try:
            return decode(response.content)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise UnreachableError(
                f"{response.url} does not answer as Imagewire's API does ({error}); is the address "
                "right, and is the client as old as the API?"
            ) from error

    return read
