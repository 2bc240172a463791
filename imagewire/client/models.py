"""What the API answers, as objects. Fields that a newer API adds are passed over.

Times are RFC 3339 texts in UTC (`datetime.fromisoformat` reads them); docs/api.md says what every
field means.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from msgspec import Struct

from imagewire.client.policy_diff import PolicyDiff as PolicyDiff

Verdict = Literal["allow", "review", "block"]


class Image(Struct, frozen=True, kw_only=True):
    """One image, in what lists show of it. `decided_by`: `policy` or `person`."""

    image_id: str
    content_id: str | None = None
    feed: str = ""
    event_time: str = ""
    uri: str | None = None
    verdict: Verdict | None = None
    decided_by: str = "policy"
    rules: list[str] = []
    labels: list[str] = []
    text: str = ""
    width: int = 0
    height: int = 0
    latency_ms: float | None = None


class ImagePage(Struct, frozen=True, kw_only=True):
    """A page of images, newest first; `next` is the cursor of the page that follows."""

    images: list[Image]
    next: str | None = None


class HistoryEntry(Struct, frozen=True, kw_only=True):
    """What was decided over an image at one time."""

    time: str
    verdict: Verdict | None = None
    by: str
    rules: list[str] = []
    policy: str = ""
    reason: str | None = None
    withdrawn: bool = False
    reviewer: str | None = None
    of_image: str | None = None


class Failure(Struct, frozen=True, kw_only=True):
    """Why an image became a dead letter."""

    stage: str
    reason: str
    detail: str
    time: str = ""
    attempt: int = 1


class ImageDetail(Struct, frozen=True, kw_only=True):
    """Everything known of one image. `findings`: as on the topic images.findings."""

    image: Image
    findings: dict[str, Any] | None = None
    history: list[HistoryEntry] = []
    failure: Failure | None = None


class Published(Struct, frozen=True, kw_only=True):
    """An image that is on Kafka. `findings` and `failure` are `None` unless waited for, and while
    they are not there."""

    image_id: str
    topic: str
    partition: int
    offset: int
    findings: dict[str, Any] | None = None
    failure: Failure | None = None


class PublishedImages(Struct, frozen=True):
    """Images that are on Kafka, in the order in which they were given."""

    images: list[Published]


class SearchResult(Image, frozen=True, kw_only=True):
    """An image that was found. `score`: cosine similarity; `copies`: images with these bytes."""

    score: float
    copies: int = 1


class SearchAnswer(Struct, frozen=True, kw_only=True):
    """Images that were found, the most similar first."""

    results: list[SearchResult]
    took_ms: float = 0.0


class DuplicateGroup(Struct, frozen=True, kw_only=True):
    """Images that are nearly the same picture."""

    images: list[Image]
    similarity: float


class DuplicatesAnswer(Struct, frozen=True, kw_only=True):
    """Near-duplicates in a time range; `complete` is false if it held too many images."""

    groups: list[DuplicateGroup]
    looked_at: int = 0
    complete: bool = True


class Feed(Struct, frozen=True, kw_only=True):
    """A feed, and what became of its images."""

    feed: str
    images: int
    last_event_time: str
    review: int = 0
    block: int = 0


class Feeds(Struct, frozen=True):
    """All feeds."""

    feeds: list[Feed]


class Column(Struct, frozen=True):
    """A column of a result. `type`: ClickHouse's name of it."""

    name: str
    type: str
    comment: str = ""


class SqlResult(Struct, frozen=True, kw_only=True):
    """The result of a statement. Integers beyond 2^53 and decimals are text."""

    columns: list[Column]
    rows: list[list[Any]]
    row_count: int | None = None
    truncated: bool = False
    elapsed_ms: float = 0.0
    error: str | None = None

    def dicts(self) -> Iterator[dict[str, Any]]:
        """Each row as column name to value."""
        names = [column.name for column in self.columns]
        for row in self.rows:
            yield dict(zip(names, row, strict=True))


class View(Struct, frozen=True):
    """A view that can be asked about."""

    name: str
    comment: str
    columns: list[Column]


class SqlSchema(Struct, frozen=True):
    """What can be asked about."""

    database: str
    views: list[View]


class WaitingImage(Image, frozen=True, kw_only=True):
    """An image that waits for a person. `why`: `policy` or `audit`."""

    why: str = "policy"
    waiting_since: str = ""
    policy: str = ""
    audited_rules: list[str] = []
    fired: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    texts: list[str] = []
    scores: dict[str, float | None] = {}
    format: str = ""
    metadata: dict[str, Any] = {}
    claimed_by: str | None = None
    claimed_until: str | None = None


class QueueLength(Struct, frozen=True, kw_only=True):
    """What waits for people, and since when the first."""

    policy: int = 0
    audit: int = 0
    oldest: str | None = None


class ReviewQueue(Struct, frozen=True, kw_only=True):
    """A page of the queue, the longest waiting first."""

    images: list[WaitingImage]
    next: str | None = None
    waiting: QueueLength = QueueLength()


class NextImage(Struct, frozen=True, kw_only=True):
    """The image to decide now; `None` when nothing waits."""

    image: WaitingImage | None = None
    waiting: QueueLength = QueueLength()


class Decision(Struct, frozen=True, kw_only=True):
    """A decision of a person."""

    image_id: str
    decision: str
    reviewer: str = ""
    decision_id: str = ""
    decided_at: str = ""
    reason: str = ""
    labels: list[str] = []


class Decisions(Struct, frozen=True, kw_only=True):
    """Decisions that were made, and ids of images that are not there."""

    decisions: list[Decision]
    unknown: list[str] = []


class Withdrawn(Struct, frozen=True):
    """Decisions that were taken back, as they had been."""

    withdrawn: list[Decision]


class ReviewStatistics(Struct, frozen=True, kw_only=True):
    """How people and rules agree: rows of the views of docs/sql.md."""

    queue: QueueLength
    reviewers: list[dict[str, Any]] = []
    rule_agreement: list[dict[str, Any]] = []
    rule_precision: list[dict[str, Any]] = []
    reviewer_agreement: list[dict[str, Any]] = []


class Rule(Struct, frozen=True, kw_only=True):
    """A rule of a policy, and how often it fired."""

    name: str
    action: Verdict
    condition: str
    explanation: str = ""
    priority: int = 0
    severity: str = ""
    category: str = ""
    feeds: list[str] = []
    enabled: bool = True
    shadow: bool = False
    sample: float = 1.0
    expires: str | None = None
    fired: int | None = None
    hit_rate: float | None = None
    precision: list[dict[str, Any]] = []


class Policy(Struct, frozen=True, kw_only=True):
    """The policy in force. `source`: `topic`, `file` or `shipped`."""

    version: str | None
    name: str = ""
    source: str = ""
    trouble: str | None = None
    hours: int = 24
    images: int = 0
    rules: list[Rule] = []
    warnings: list[dict[str, Any]] = []
    text: str = ""
    versions: list[dict[str, Any]] = []


class CheckedPolicy(Struct, frozen=True, kw_only=True):
    """What came of a check of a policy."""

    usable: bool
    version: str | None = None
    error: str | None = None
    rules: list[Rule] = []
    warnings: list[dict[str, Any]] = []


class PublishedPolicy(Struct, frozen=True, kw_only=True):
    """What workers follow from now on; no `version`: their own files."""

    name: str
    version: str | None = None


class Model(Struct, frozen=True, kw_only=True):
    """A model that took part in verdicts. `model`: its `name@version`."""

    operator: str
    model: str
    name: str
    version: str
    task: str | None = None
    licence: str | None = None
    thresholds: dict[str, float] = {}
    images: int = 0
    first_seen: str = ""
    last_seen: str = ""


class Models(Struct, frozen=True, kw_only=True):
    """The models that worked, and how their results drift."""

    models: list[Model]
    drift: list[dict[str, Any]] = []


class Banlist(Struct, frozen=True, kw_only=True):
    """A list of banned images. `entries`: kind to how many, where it was asked for."""

    name: str
    owner: str = ""
    reason: str = ""
    action: Verdict = "block"
    enabled_ratio: float = 1.0
    max_distance: int = 31
    min_quality: int = 50
    max_embedding_distance: float = 0.2
    created_at: str = ""
    entries: dict[str, int] | None = None


class Banlists(Struct, frozen=True):
    """Every list."""

    lists: list[Banlist]


class BanEntry(Struct, frozen=True, kw_only=True):
    """An entry of a list. `kind`: `pdq`, `sha256` or `exemplar`."""

    kind: str
    hash: str
    comment: str = ""
    added_at: str = ""
    model: str | None = None


class BanEntries(Struct, frozen=True, kw_only=True):
    """A page of a list's entries."""

    banlist: Banlist
    entries: list[BanEntry]
    next: str | None = None


class AddedBans(Struct, frozen=True, kw_only=True):
    """What was banned, and ids of images that are not stored."""

    added: list[BanEntry]
    unknown: list[str] = []


class Removed(Struct, frozen=True):
    """How many records were taken away."""

    removed: int


class Statistics(Struct, frozen=True, kw_only=True):
    """Figures of the last minutes; `lag` is `None` while Kafka does not answer."""

    points: list[dict[str, Any]]
    step_seconds: int
    lag: dict[str, float] | None = None
    totals: dict[str, int] = {}


class VerdictEvent(Struct, frozen=True, kw_only=True):
    """A verdict as it came. `event_id`: where to go on after it; `record`: all of it."""

    image_id: str
    feed: str
    action: Verdict
    record: dict[str, Any]
    event_id: str
