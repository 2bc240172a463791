"""Asks ClickHouse for images: pages that go on where they ended, one image, its history, feeds.

A page is looked for near its newer end first, a day and then a month back, and everywhere only if
that does not fill it: with many millions of images most pages then cost a few granules. Whoever may
see some feeds only gets nothing of the others, wherever they are asked for by.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imagewire.api import image_sql
from imagewire.api.image_cursor import ImageCursor
from imagewire.api.image_models import (
    FeedSummary,
    HistoryEntry,
    ImageFailure,
    ImageSummary,
    Verdict,
)
from imagewire.api.stored_images import (
    ImageKey,
    StoredImage,
    findings_of,
    findings_record,
    image_of,
    public_uri,
)
from operators.findings import Findings
from sinks.event_time import rfc3339

Ask = Callable[[str, Mapping[str, Any]], Awaitable[list[dict[str, Any]]]]
"""Runs a query with its parameters."""

EARLIEST_MS = -2_208_988_800_000
LATEST_MS = 10_413_792_000_000
"""1900 and 2300: the times that a column of event times can hold."""

_DAY_MS = 86_400_000
_SPANS_MS = (_DAY_MS, 31 * _DAY_MS, None)
"""How far back from its newer end a page is looked for; `None`: all the way."""
_IDS_AT_ONCE = 1000
MOST_COUNTED = 100_000
"""Images that are counted one by one where feeds are listed: some tenths of a second."""


@dataclass(frozen=True, slots=True)
class ImageFilter:
    """Which images are meant; what is empty or `None` means any.

    Attributes:
        allowed: the feeds that the caller may see; empty for all.
        text: a part of the text that was read, whatever its case.
        since_ms, until_ms: event times from, and before; milliseconds since the epoch.
    """

    allowed: Sequence[str] = ()
    feed: str = ""
    verdict: Verdict | None = None
    label: str = ""
    text: str = ""
    since_ms: int | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class KnownImage:
    """An image with what was found in it.

    Attributes:
        findings: with the original's coordinates, to draw them and to hide what they know.
        record: the findings as on the topic images.findings.
        version: milliseconds at which its record reached Kafka.
    """

    image: StoredImage
    findings: Findings
    record: dict[str, Any]
    version: int = 0


@dataclass(frozen=True, slots=True)
class FailedImage:
    """An image that became a dead letter. `version`: milliseconds at which its record reached
    Kafka."""

    summary: ImageSummary
    failure: ImageFailure
    version: int


class ImageQueries:
    """Images, for callers who may see `allowed` feeds only (all if empty)."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def page(
        self, chosen: ImageFilter, after: ImageCursor | None, limit: int
    ) -> tuple[list[StoredImage], ImageCursor | None]:
        """Images, newest first, and where to go on, if there are more."""
        until = LATEST_MS if chosen.until_ms is None else chosen.until_ms
        since = EARLIEST_MS if chosen.since_ms is None else chosen.since_ms
        if after is not None:
            until = min(until, after.event_time_ms + 1)
        newest = min(until, time.time_ns() // 1_000_000)
        keys: list[ImageKey] = []
        for span in _SPANS_MS:
            start = since if span is None else max(since, newest - span)
            keys = await self._keys(chosen, start, until, after, limit + 1)
            if len(keys) > limit or start == since:
                break
        more = len(keys) > limit
        keys = keys[:limit]
        found = await self._of_keys(keys)
        # One that was erased in between is left out.
        images = [found[key] for key in keys if key in found]
        last = keys[-1] if more else None
        if last is None:
            return images, None
        return images, ImageCursor(last.event_time_ms, last.image_id, last.feed)

    async def image(
        self, image_id: str, allowed: Sequence[str] = (), feed: str = ""
    ) -> KnownImage | None:
        """One image; of several feeds that use its id the one whose record came last."""
        rows = await self._ask(
            image_sql.IMAGE, {"ids": [image_id], "allowed": list(allowed), "feed": feed}
        )
        if not rows:
            return None
        findings = findings_of(rows[0])
        record = findings_record(rows[0], findings)
        return KnownImage(image_of(rows[0]), findings, record, int(rows[0]["version"]))

    async def by_ids(
        self, image_ids: Sequence[str], allowed: Sequence[str] = ()
    ) -> dict[tuple[str, str], StoredImage]:
        """Images by (feed, image id); those that are not there are left out."""
        found: dict[tuple[str, str], StoredImage] = {}
        unique = list(dict.fromkeys(image_ids))
        for start in range(0, len(unique), _IDS_AT_ONCE):
            rows = await self._ask(
                image_sql.SUMMARIES,
                {"ids": unique[start : start + _IDS_AT_ONCE], "allowed": list(allowed)},
            )
            for row in rows:
                image = image_of(row)
                found[(image.key.feed, image.key.image_id)] = image
        return found

    async def copies(
        self, content_ids: Sequence[str], allowed: Sequence[str] = ()
    ) -> dict[str, int]:
        """How many images have each of these contents."""
        contents = [content for content in dict.fromkeys(content_ids) if content]
        if not contents:
            return {}
        rows = await self._ask(image_sql.COPIES, {"contents": contents, "allowed": list(allowed)})
        return {row["content_id"]: int(row["copies"]) for row in rows}

    async def decided_otherwise(
        self, verdict: Verdict, allowed: Sequence[str], limit: int
    ) -> list[str]:
        """Ids of images with this verdict in force although another was written."""
        rows = await self._ask(
            image_sql.DECIDED_OTHERWISE,
            {"verdict": verdict, "allowed": list(allowed), "limit": limit},
        )
        return [row["image_id"] for row in rows]

    async def history(
        self, known: KnownImage, allowed: Sequence[str], name_reviewers: bool
    ) -> list[HistoryEntry]:
        """Every verdict over an image, oldest first. `name_reviewers`: the caller may know who
        decided."""
        image = known.image
        rows = await self._ask(
            image_sql.HISTORY,
            {
                "id": image.key.image_id,
                "content": image.content_id,
                "allowed": list(allowed),
            },
        )
        entries = [_decision_entry(row, image.key.image_id, name_reviewers) for row in rows]
        verdict = known.findings.verdict
        if verdict is not None:
            machine = verdict.machine_action or verdict.action
            entries.append(
                HistoryEntry(
                    time=rfc3339(image.kafka_time_ms),
                    verdict=machine,
                    by="policy",
                    rules=list(image.rules),
                    policy=verdict.policy,
                )
            )
        return sorted(entries, key=lambda entry: entry.time)

    async def failure(
        self, image_id: str, allowed: Sequence[str] = (), feed: str = ""
    ) -> FailedImage | None:
        """The latest dead letter of an image, whether or not it was analysed after that."""
        rows = await self._ask(
            image_sql.FAILURE, {"id": image_id, "allowed": list(allowed), "feed": feed}
        )
        if not rows:
            return None
        row = rows[0]
        return FailedImage(
            _unseen(row),
            ImageFailure(
                stage=row["stage"],
                reason=row["reason"],
                detail=row["detail"],
                time=rfc3339(int(row["ingested_at_ms"])),
                attempt=int(row["attempt"]),
            ),
            int(row["version"]),
        )

    async def feeds(self, allowed: Sequence[str] = ()) -> list[FeedSummary]:
        """All feeds, those with the latest images first.

        Up to `MOST_COUNTED` images are counted one by one. Of more it is told what the stored sums
        say, corrected by people's decisions, which takes no longer however many there are.
        """
        asked = {"allowed": list(allowed)}
        rows = await self._ask(image_sql.FEED_TOTALS, asked)
        if sum(int(row["images"]) for row in rows) <= MOST_COUNTED:
            rows = await self._ask(image_sql.FEEDS, asked)
        else:
            rows = _corrected(rows, await self._ask(image_sql.DECIDED_FEEDS, asked))
        return [
            FeedSummary(
                feed=row["feed"],
                images=int(row["images"]),
                last_event_time=rfc3339(int(row["last_event_time_ms"])),
                review=int(row["review"]),
                block=int(row["block"]),
            )
            for row in rows
        ]

    async def _keys(
        self,
        chosen: ImageFilter,
        since: int,
        until: int,
        after: ImageCursor | None,
        limit: int,
    ) -> list[ImageKey]:
        parameters = {
            "allowed": list(chosen.allowed),
            "feed": chosen.feed,
            "label": chosen.label,
            "text": chosen.text,
            "since": min(max(since, EARLIEST_MS), LATEST_MS),
            "until": min(max(until, EARLIEST_MS), LATEST_MS),
            "after": after.image_id if after else "",
            "after_ms": after.event_time_ms if after else 0,
            "after_feed": after.feed if after else "",
            "limit": limit,
        }
        if chosen.verdict is None:
            rows = await self._ask(image_sql.KEYS, parameters)
        else:
            rows = await self._ask(
                image_sql.KEYS_BY_VERDICT, parameters | {"verdict": chosen.verdict}
            )
        return [ImageKey(row["feed"], int(row["event_time_ms"]), row["image_id"]) for row in rows]

    async def _of_keys(self, keys: Sequence[ImageKey]) -> dict[ImageKey, StoredImage]:
        if not keys:
            return {}
        times = [key.event_time_ms for key in keys]
        rows = await self._ask(
            image_sql.OF_KEYS,
            {
                "feeds": sorted({key.feed for key in keys}),
                "ids": sorted({key.image_id for key in keys}),
                "since": min(times),
                "until": max(times) + 1,
            },
        )
        images = [image_of(row) for row in rows]
        return {image.key: image for image in images}


def _corrected(
    rows: Sequence[Mapping[str, Any]], decided: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Sums by the verdicts that images came with, as they are since people decided."""
    sums = {row["feed"]: dict(row) for row in rows}
    for change in decided:
        totals = sums.get(change["feed"])
        if totals is None:
            continue
        for verdict in ("review", "block"):
            moved = (change["decision"] == verdict) - (change["machine"] == verdict)
            # An image that came again after it was decided came with the decision.
            least, most = 0, int(totals["images"])
            now = int(totals[verdict]) + moved * int(change["images"])
            totals[verdict] = min(max(now, least), most)
    return list(sums.values())


def _decision_entry(row: Mapping[str, Any], image_id: str, name_reviewers: bool) -> HistoryEntry:
    withdrawn = row["decision"] == "withdraw"
    verdict = row["machine_verdict"] if withdrawn else row["decision"]
    return HistoryEntry(
        time=rfc3339(int(row["decided_at_ms"])),
        verdict=None if verdict == "none" else verdict,
        by="person",
        rules=list(row["rules"]),
        policy=row["policy"],
        reason=row["reason"] or None,
        withdrawn=withdrawn,
        reviewer=row["reviewer"] if name_reviewers else None,
        of_image=None if row["image_id"] == image_id else row["image_id"],
    )


def _unseen(row: Mapping[str, Any]) -> ImageSummary:
    """What is known of an image that was never analysed."""
    return ImageSummary(
        image_id=row["image_id"],
        content_id=None,
        feed=row["feed"],
        event_time=rfc3339(int(row["event_time_ms"])),
        uri=public_uri(row["uri"]),
        verdict=None,
        decided_by="policy",
        rules=[],
        labels=[],
        text="",
        width=0,
        height=0,
        latency_ms=None,
    )
