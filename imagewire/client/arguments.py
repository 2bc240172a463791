"""What verbs take by name, so that both clients say it alike."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypedDict

from imagewire.client import models

Picture = bytes | Path
Moment = datetime | str
"""Of a text: RFC 3339, such as 2026-01-31T08:15:00Z. A datetime without a zone is UTC."""


class ImageFilters(TypedDict, total=False):
    """Which images are meant: with this verdict in force, this object, this text in a line."""

    feed: str
    verdict: models.Verdict
    label: str
    text: str
    since: Moment
    until: Moment


class SearchFilters(TypedDict, total=False):
    """Among which images to search. `min_score`: cosine similarity."""

    limit: int
    feed: str
    verdict: models.Verdict
    labels: Sequence[str]
    since: Moment
    until: Moment
    min_score: float


class TrialOptions(TypedDict, total=False):
    """How to try a policy: on which feeds (all if empty), against which other policy's text, on how
    many images at most."""

    feeds: Sequence[str]
    against: str | None
    max_images: int


class ListSettings(TypedDict, total=False):
    """Settings of a list of banned images."""

    owner: str
    reason: str
    action: models.Verdict
    enabled_ratio: float
    max_distance: int
    min_quality: int
    max_embedding_distance: float


class Reference(TypedDict, total=False):
    """An image reference; `uri` is needed."""

    uri: str
    id: str
    feed: str
    lane: Literal["live", "bulk"]
    captured_at: str
    metadata: dict[str, Any]


class PublishOptions(TypedDict, total=False):
    """What to say of an image that is published."""

    id: str
    feed: str
    lane: Literal["live", "bulk"]
    captured_at: Moment
    metadata: dict[str, Any]
