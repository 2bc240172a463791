"""What the API says of images: the shapes that programs and the console rely on.

Fields are only ever added. Names are those of Kafka records, SQL columns and vector payloads; times
are RFC 3339 in UTC with milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Verdict = Literal["allow", "review", "block"]
Time = Annotated[str, Field(examples=["2026-01-31T08:15:00.000Z"])]


class ImageSummary(BaseModel):
    """One image, in what lists show of it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "image_id": "bus-1",
                    "content_id": "9f86d081884c7d659a2feaa0c55ad015" * 2,
                    "feed": "gate-3",
                    "event_time": "2026-01-31T08:15:00.000Z",
                    "uri": "https://example.org/photos/bus.jpg",
                    "verdict": "allow",
                    "decided_by": "policy",
                    "rules": [],
                    "labels": ["FACE_FEMALE"],
                    "text": "M150/SEVILLA",
                    "width": 810,
                    "height": 1080,
                    "latency_ms": 412.0,
                }
            ]
        }
    )

    image_id: str = Field(description="The producer's id, else one derived from the record.")
    content_id: str | None = Field(description="SHA-256 of the bytes; null if never fetched.")
    feed: str = Field(description="The source that it belongs to.")
    event_time: Time = Field(description="When it was captured, else when it reached Kafka.")
    uri: str | None = Field(
        description="Where it is; null if its bytes came on Kafka or inside the reference."
    )
    verdict: Verdict | None = Field(description="The one in force; null if there is none.")
    decided_by: Literal["policy", "person"] = Field(description="Whose verdict it is.")
    rules: list[str] = Field(description="The policy's rules that fired, shadow rules left out.")
    labels: list[str] = Field(description="Kinds of objects in it, the surest first.")
    text: str = Field(description="The text that was read, as stored; at most 4000 characters.")
    width: int = Field(description="Of the upright picture in pixels; 0 if it was never decoded.")
    height: int = Field(description="Of the upright picture in pixels.")
    latency_ms: float | None = Field(description="From its record on Kafka to its row.")


class ImagePage(BaseModel):
    """A page of images, newest first."""

    images: list[ImageSummary]
    next: str | None = Field(
        description="Give it as `cursor` to go on; null at the end.", examples=[None]
    )


class HistoryEntry(BaseModel):
    """What was decided over an image at one time."""

    time: Time
    verdict: Verdict | None = Field(description="The verdict from then on.")
    by: Literal["policy", "person"]
    rules: list[str] = Field(description="Rules that had fired.")
    policy: str = Field(description="Version of the policy that was in force.")
    reason: str | None = Field(None, description="What the person wrote.")
    withdrawn: bool = Field(False, description="A person took a decision back.")
    reviewer: str | None = Field(None, description="Who it was; only with the scope review.")
    of_image: str | None = Field(
        None, description="The image that was decided, where it is another with the same bytes."
    )


class ImageFailure(BaseModel):
    """Why an image became a dead letter."""

    stage: str
    reason: str
    detail: str
    time: Time
    attempt: int


class ImageDetail(BaseModel):
    """Everything known of one image."""

    image: ImageSummary
    findings: dict[str, Any] | None = Field(
        description="As on the topic images.findings; null if it was never analysed."
    )
    history: list[HistoryEntry] = Field(description="Oldest first.")
    failure: ImageFailure | None = Field(
        description="Why it cannot be analysed; null once it could."
    )
    neighbours: str = Field(
        description="Images that look like it: POST {'image_id': …} there.",
        examples=["/v1/search"],
    )


class SearchResult(ImageSummary):
    """An image that was found."""

    score: float = Field(description="Cosine similarity, 1 for the same picture.")
    copies: int = Field(description="Images with the same bytes, this one included.")


class SearchAnswer(BaseModel):
    """Images that were found, the most similar first."""

    results: list[SearchResult]
    took_ms: float


class DuplicateGroup(BaseModel):
    """Images that are nearly the same picture."""

    images: list[ImageSummary] = Field(description="The earliest first.")
    similarity: float = Field(
        description="The lowest cosine similarity between the earliest and any other."
    )


class DuplicatesAnswer(BaseModel):
    """Near-duplicates in a time range."""

    groups: list[DuplicateGroup] = Field(description="The largest first.")
    looked_at: int = Field(description="Images with an embedding that were compared.")
    complete: bool = Field(
        description="False if the range holds more images than are compared at once."
    )


class FeedSummary(BaseModel):
    """A feed, and what became of its images."""

    feed: str
    images: int
    last_event_time: Time
    review: int = Field(description="Images whose verdict in force is review.")
    block: int = Field(description="Images whose verdict in force is block.")


class FeedsAnswer(BaseModel):
    """All feeds, those with the latest images first."""

    feeds: list[FeedSummary]
