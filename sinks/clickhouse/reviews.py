"""Keeps decisions of people in ClickHouse, with what the policy had said of their images.

A decision's row is named by image, time and decision id, so that writing it again leaves one. What
the policy said is looked up when the decision is stored and kept in its row: rules can then be
judged from decisions alone, also after the image itself has expired.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sinks.clickhouse.connection import (
    ACCESS_CODES,
    connect,
    engine_message,
    is_transient,
    place,
)
from sinks.clickhouse.settings import ClickHouseSettings
from sinks.sink import AccessSinkError, PermanentSinkError, SinkError, TransientSinkError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_T = TypeVar("_T")

_TIME = "DateTime64(3, 'UTC')"
_LABEL = "LowCardinality(String)"
_ACTION = "Enum8('none' = 0, 'allow' = 1, 'review' = 2, 'block' = 3)"
_COLUMNS = {
    "image_id": "String",
    "content_id": "String",
    "feed": _LABEL,
    "decision": "Enum8('allow' = 1, 'block' = 3, 'withdraw' = 4)",
    "reviewer": _LABEL,
    "reason": "String",
    "labels": f"Array({_LABEL})",
    "decided_at": _TIME,
    "decision_id": "String",
    "machine_verdict": _ACTION,
    "policy": _LABEL,
    "rules": f"Array({_LABEL})",
    "audited_rules": f"Array({_LABEL})",
    "topic": _LABEL,
    "kafka_partition": "Int32",
    "kafka_offset": "Int64",
    "kafka_time": _TIME,
    "ingested_at": _TIME,
}

_IMAGES = """
SELECT
    image_id, feed, toUnixTimestamp64Milli(event_time) AS event_time_ms, content_id, uri,
    CAST(machine_verdict, 'String') AS machine_verdict, policy,
    rules.rule AS names, CAST(rules.action, 'Array(String)') AS actions,
    rules.explanation AS explanations, rules.priority AS priorities,
    rules.severity AS severities, rules.category AS categories, rules.shadow AS shadows,
    audited_rules
FROM {database}.images_raw FINAL
WHERE image_id IN {{ids:Array(String)}}
ORDER BY image_id, version
"""


class StoredDecision(Protocol):
    """What is stored of a decision."""

    @property
    def image_id(self) -> str: ...
    @property
    def content_id(self) -> str | None: ...
    @property
    def choice(self) -> str: ...
    @property
    def reviewer(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def decided_at_ms(self) -> int: ...
    @property
    def decision_id(self) -> str: ...
    @property
    def feed(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class KnownImage:
    """What ClickHouse knows of an image that somebody decided.

    Attributes:
        event_time_ms: milliseconds since the epoch.
        machine_verdict: the policy's; `none` if there was no policy.
        hits: each rule that fired, as the fields of a `RuleHit`.
    """

    image_id: str
    feed: str
    event_time_ms: int
    content_id: str | None
    uri: str | None
    machine_verdict: str
    policy: str
    hits: tuple[dict[str, Any], ...]
    audited_rules: tuple[str, ...]

    @property
    def carriers(self) -> list[str]:
        """The rules that asked for the policy's verdict."""
        return list(
            dict.fromkeys(
                hit["rule"]
                for hit in self.hits
                if hit["action"] == self.machine_verdict and not hit["shadow"]
            )
        )


class ReviewStore:
    """Writes decisions, and looks up the images that they are about."""

    def __init__(self, settings: ClickHouseSettings) -> None:
        self._settings = settings
        self._client: Client | None = None
        self._thread = ThreadPoolExecutor(1, "clickhouse-reviews")

    async def images(self, image_ids: Sequence[str]) -> dict[str, KnownImage]:
        """The newest row of each image that is known.

        Raises:
            TransientSinkError, PermanentSinkError
        """
        return await self._call("looking images up", lambda: self._images(image_ids))

    async def store(
        self,
        decisions: Sequence[tuple[StoredDecision, KnownImage | None, tuple[str, int, int, int]]],
    ) -> None:
        """Insert decisions, each with its image and the topic, partition, offset and time (ms) of
        its record.

        Raises:
            TransientSinkError, PermanentSinkError
        """
        if decisions:
            await self._call(f"storing {len(decisions)} decisions", lambda: self._store(decisions))

    async def close(self) -> None:
        """Release the connection."""
        if self._client is not None:
            client, self._client = self._client, None
            await asyncio.get_running_loop().run_in_executor(self._thread, client.close)
        self._thread.shutdown(wait=False)

    async def _call(self, doing: str, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except SinkError:
            raise
        except Exception as error:
            message = f"ClickHouse at {place(self._settings)}, {doing}: {engine_message(error)}"
            if is_transient(error):
                raise TransientSinkError(message) from error
            if getattr(error, "code", None) in ACCESS_CODES:
                raise AccessSinkError(message) from error
            raise PermanentSinkError(message) from error

    def _connected(self) -> Client:
        if self._client is None:
            self._client = connect(self._settings)
        return self._client

    def _images(self, image_ids: Sequence[str]) -> dict[str, KnownImage]:
        answer = self._connected().query(
            _IMAGES.format(database=self._settings.database),
            parameters={"ids": sorted(set(image_ids))},
        )
        found = {}
        for row in answer.named_results():
            hits = zip(
                row["names"],
                row["actions"],
                row["explanations"],
                row["priorities"],
                row["severities"],
                row["categories"],
                row["shadows"],
                strict=False,
            )
            names = (
                *("rule", "action", "explanation", "priority"),
                *("severity", "category", "shadow"),
            )
            found[row["image_id"]] = KnownImage(
                row["image_id"],
                row["feed"],
                row["event_time_ms"],
                row["content_id"] or None,
                row["uri"] or None,
                row["machine_verdict"],
                row["policy"],
                tuple(dict(zip(names, hit, strict=True)) for hit in hits),
                tuple(row["audited_rules"]),
            )
        return found

    def _store(
        self,
        decisions: Sequence[tuple[StoredDecision, KnownImage | None, tuple[str, int, int, int]]],
    ) -> None:
        now = time.time_ns() // 1_000_000
        rows = [
            [
                decision.image_id,
                decision.content_id or (image.content_id if image else None) or "",
                (image.feed if image else None) or decision.feed or "",
                decision.choice,
                decision.reviewer,
                decision.reason,
                list(decision.labels),
                decision.decided_at_ms,
                decision.decision_id,
                image.machine_verdict if image else "none",
                image.policy if image else "",
                image.carriers if image else [],
                list(image.audited_rules) if image else [],
                topic,
                partition,
                offset,
                max(time_ms, 0),
                now,
            ]
            for decision, image, (topic, partition, offset, time_ms) in decisions
        ]
        self._connected().insert(
            f"{self._settings.database}.reviews_raw",
            rows,
            column_names=list(_COLUMNS),
            column_type_names=list(_COLUMNS.values()),
            settings={"async_insert": 0},
        )
