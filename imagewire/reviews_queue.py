"""The queue of images that wait for people, and what reviewers do with it.

The queue is what ClickHouse says: images whose verdict is `review`, and those drawn for an audit,
as long as nobody has decided them or an image with the same bytes. Decisions go to Kafka, as those
of any other tool do.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from imagewire.reviews_claims import claims
from imagewire.settings import Settings
from sinks.clickhouse.reader import ClickHouseReader
from sinks.event_time import rfc3339
from sinks.sink import TransientSinkError
from streams.reviews import Choice, ReviewDecision

_CANDIDATES = 50
"""How many of the oldest are looked at: more are claimed at once only by as many reviewers."""

_WAITING = """
SELECT
    image_id, event_time, feed, content_id, uri, CAST(machine_verdict, 'String') AS verdict,
    if(machine_verdict = 'review', 'policy', 'audit') AS why, policy,
    arrayMap(
        (rule, action, explanation, shadow) -> map(
            'rule', toString(rule), 'action', CAST(action, 'String'),
            'explanation', explanation, 'shadow', if(shadow, 'yes', 'no')
        ),
        rules.rule, rules.action, rules.explanation, rules.shadow
    ) AS rules,
    audited_rules,
    arrayMap(
        (label, score) -> (toString(label), score), objects.label, objects.score
    ) AS objects,
    texts.text AS texts, scores, width, height, format, metadata, kafka_time
FROM images_raw FINAL
WHERE (machine_verdict = 'review' OR notEmpty(audited_rules))
    AND decided_by != 'person'
    AND image_id NOT IN (SELECT image_id FROM decisions)
    AND (
        content_id = ''
        OR content_id NOT IN (SELECT content_id FROM decisions WHERE content_id != '')
    )
    AND (empty({feeds:Array(String)}) OR feed IN {feeds:Array(String)})
    AND ({why:String} = '' OR why = {why:String})
    AND image_id NOT IN {busy:Array(String)}
ORDER BY kafka_time, image_id
LIMIT {limit:UInt32}
"""
_LENGTH = """
SELECT
    countIf(machine_verdict = 'review') AS policy, countIf(machine_verdict != 'review') AS audit,
    min(kafka_time) AS oldest
FROM images_raw FINAL
WHERE (machine_verdict = 'review' OR notEmpty(audited_rules))
    AND decided_by != 'person'
    AND image_id NOT IN (SELECT image_id FROM decisions)
    AND (
        content_id = ''
        OR content_id NOT IN (SELECT content_id FROM decisions WHERE content_id != '')
    )
"""
_IMAGE = """
SELECT image_id, feed, content_id, uri, event_time, CAST(machine_verdict, 'String') AS verdict
FROM images_raw FINAL WHERE image_id = {id:String} ORDER BY version DESC LIMIT 1
"""
_REVIEWERS = """
SELECT
    reviewer, count() AS decisions, countIf(decision = 'allow') AS allowed,
    countIf(decision = 'block') AS blocked, countIf(decision = 'withdraw') AS withdrawn,
    max(decided_at) AS last
FROM reviews GROUP BY reviewer ORDER BY decisions DESC
"""
_LAST = """
SELECT image_id, content_id, feed, decision, decided_at, decision_id FROM reviews
WHERE reviewer = {reviewer:String} AND ({id:String} = '' OR image_id = {id:String})
ORDER BY decided_at DESC, decision_id DESC LIMIT 1
"""


class NothingToDecideError(LookupError):
    """There is no such image, or no such decision; the message says which."""


def waiting(
    reader: ClickHouseReader,
    feeds: Sequence[str] = (),
    why: str = "",
    busy: Sequence[str] = (),
    limit: int = _CANDIDATES,
) -> list[dict[str, Any]]:
    """The images that wait longest, with what was found in them.

    Args:
        why: `policy` or `audit`; any if empty.
        busy: ids that are left out.

    Raises:
        QueryError
    """
    found = reader.query(
        _WAITING, {"feeds": list(feeds), "why": why, "busy": list(busy), "limit": limit}
    )
    rows: list[dict[str, Any]] = found.to_pylist(maps_as_pydicts="lossy")
    return rows


async def next_image(
    settings: Settings,
    reader: ClickHouseReader,
    reviewer: str,
    feeds: Sequence[str] = (),
    why: str = "",
) -> dict[str, Any] | None:
    """The oldest image that waits and that nobody else has, claimed for `reviewer` until
    `reviews.lease` is over; `None` if there is none. One that the reviewer holds comes again.

    Raises:
        QueryError, TransientSinkError
    """
    async with claims(settings.kafka) as held:
        busy: list[str] = []
        while True:
            candidates = waiting(reader, feeds, why, busy)
            if not candidates:
                return None
            for image in candidates:
                image_id = image["image_id"]
                if held.held_by(image_id) in (None, reviewer) and await held.claim(
                    image_id, reviewer, settings.reviews.lease
                ):
                    return image | {"claimed_until": _lease_end(settings.reviews.lease)}
                busy.append(image_id)


async def decide(
    settings: Settings,
    reader: ClickHouseReader | None,
    reviewer: str,
    image_id: str,
    choice: Choice,
    reason: str = "",
    labels: Sequence[str] = (),
) -> ReviewDecision:
    """Publish a decision. The claim stays, which keeps the image from others for the moment that
    the decision takes to be stored.

    Raises:
        NothingToDecideError: ClickHouse has no such image.
        QueryError, TransientSinkError
        msgspec.ValidationError: a name, reason or label is too long.
    """
    image: dict[str, Any] = {}
    if reader is not None:
        rows = reader.query(_IMAGE, {"id": image_id}).to_pylist()
        if not rows:
            raise NothingToDecideError(
                f"ClickHouse has no image '{image_id}'; look at the id, or wait until its row is "
                "written"
            )
        image = rows[0]
    decision = msgspec.convert(
        {
            "image_id": image_id,
            "decision": choice,
            "reviewer": reviewer,
            "content_id": image.get("content_id") or None,
            "reason": reason,
            "labels": list(labels),
            "decided_at": rfc3339(time.time_ns() // 1_000_000),
            "decision_id": str(uuid.uuid4()),
            "feed": image.get("feed"),
        },
        ReviewDecision,
    )
    await publish_decision(settings, decision)
    return decision


async def undo(
    settings: Settings, reader: ClickHouseReader, reviewer: str, image_id: str | None = None
) -> tuple[ReviewDecision, dict[str, Any]]:
    """Take the reviewer's last decision back (or the one on `image_id`).

    Returns:
        The withdrawal, and the decision that it takes back.

    Raises:
        NothingToDecideError: there is none, or it was taken back already.
        QueryError, TransientSinkError
    """
    rows = reader.query(_LAST, {"reviewer": reviewer, "id": image_id or ""}).to_pylist()
    of = f" on '{image_id}'" if image_id else ""
    if not rows:
        raise NothingToDecideError(
            f"'{reviewer}' has no decision{of} in ClickHouse; one that was just made is stored "
            "within a second or two, while a worker runs"
        )
    last: dict[str, Any] = rows[0]
    if last["decision"] == "withdraw":
        raise NothingToDecideError(
            f"the last decision of '{reviewer}'{of}, on '{last['image_id']}', was taken back "
            "already; name another image"
        )
    withdrawal = await decide(settings, None, reviewer, last["image_id"], "withdraw", "undone")
    async with claims(settings.kafka) as held:
        await held.give_back(last["image_id"], reviewer)
    return withdrawal, last


async def publish_decision(settings: Settings, decision: ReviewDecision) -> None:
    """Put a decision on its topic; returns once every replica has it.

    Raises:
        TransientSinkError
    """
    producer = AIOKafkaProducer(**settings.kafka.producer_options())
    try:
        await producer.start()
        await producer.send_and_wait(
            settings.kafka.topics.reviews,
            msgspec.json.encode(decision),
            key=decision.image_id.encode(),
        )
    except (KafkaError, OSError) as error:
        raise TransientSinkError(
            f"the broker at {settings.kafka.bootstrap_servers} does not take the decision: "
            f"{error!r}; nothing was decided"
        ) from error
    finally:
        await producer.stop()


def statistics(reader: ClickHouseReader) -> dict[str, list[dict[str, Any]]]:
    """The queue and every view about people, by name.

    Raises:
        QueryError
    """
    queries = {
        "queue": _LENGTH,
        "reviewers": _REVIEWERS,
        "rule_agreement": "SELECT * FROM rule_agreement ORDER BY decided DESC, rule",
        "rule_precision": "SELECT * FROM rule_precision ORDER BY rule, machine_verdict",
        "reviewer_agreement": "SELECT * FROM reviewer_agreement ORDER BY images DESC",
    }
    return {name: reader.query(sql).to_pylist() for name, sql in queries.items()}


def _lease_end(seconds: float) -> str:
    end = datetime.now(UTC).timestamp() + seconds
    return rfc3339(int(end * 1000))
