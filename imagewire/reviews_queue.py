"""The queue of images that wait for people, and what reviewers do with it.

The queue is what ClickHouse says: images whose verdict is `review`, and those drawn for an audit,
as long as nobody has decided them or an image with the same bytes. Decisions go to Kafka, as those
of any other tool do.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from imagewire.reviews_claims import Claims, claims
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
    texts.text AS texts, scores, width, height, format, metadata, kafka_time, latency_ms
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
    AND (
        {after_id:String} = ''
        OR (kafka_time, image_id)
            > (fromUnixTimestamp64Milli({after_ms:Int64}, 'UTC'), {after_id:String})
    )
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
    AND (empty({feeds:Array(String)}) OR feed IN {feeds:Array(String)})
"""
_IMAGES = """
SELECT image_id, feed, content_id, uri, event_time, CAST(machine_verdict, 'String') AS verdict
FROM images_raw FINAL
WHERE image_id IN {ids:Array(String)}
    AND (empty({feeds:Array(String)}) OR feed IN {feeds:Array(String)})
ORDER BY version DESC LIMIT 1 BY image_id
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
WHERE reviewer = {reviewer:String}
    AND (empty({ids:Array(String)}) OR image_id IN {ids:Array(String)})
ORDER BY decided_at DESC, decision_id DESC LIMIT 1 BY image_id LIMIT {limit:UInt32}
"""


class NothingToDecideError(LookupError):
    """There is no such image, or no such decision; the message says which."""


def waiting(
    reader: ClickHouseReader,
    feeds: Sequence[str] = (),
    why: str = "",
    busy: Sequence[str] = (),
    limit: int = _CANDIDATES,
    after: tuple[int, str] | None = None,
) -> list[dict[str, Any]]:
    """The images that wait longest, with what was found in them.

    Args:
        why: `policy` or `audit`; any if empty.
        busy: ids that are left out.
        after: the `kafka_time` (milliseconds since the epoch) and id of the last that is known.

    Raises:
        QueryError
    """
    after_ms, after_id = after or (0, "")
    asked = {"feeds": list(feeds), "why": why, "busy": list(busy), "limit": limit}
    found = reader.query(_WAITING, asked | {"after_ms": after_ms, "after_id": after_id})
    rows: list[dict[str, Any]] = found.to_pylist(maps_as_pydicts="lossy")
    return rows


def queue_length(reader: ClickHouseReader, feeds: Sequence[str] = ()) -> dict[str, Any]:
    """How many images wait for the reason `policy` and how many for `audit`, and since when
    (`oldest`, of no meaning when none waits).

    Raises:
        QueryError
    """
    row: dict[str, Any] = reader.query(_LENGTH, {"feeds": list(feeds)}).to_pylist()[0]
    return row


def known_images(
    reader: ClickHouseReader, image_ids: Sequence[str], feeds: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """What a decision says of each of these images that is there, by its id.

    Raises:
        QueryError
    """
    found = reader.query(_IMAGES, {"ids": list(image_ids), "feeds": list(feeds)})
    return {row["image_id"]: row for row in found.to_pylist()}


def last_decisions(
    reader: ClickHouseReader, reviewer: str, image_ids: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The reviewer's last decision on each of these images, the latest first; on any image, and one
    only, if none is named.

    Raises:
        QueryError
    """
    asked = {"reviewer": reviewer, "ids": list(image_ids), "limit": len(image_ids) or 1}
    rows: list[dict[str, Any]] = reader.query(_LAST, asked).to_pylist()
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

    async def look(busy: Sequence[str]) -> list[dict[str, Any]]:
        return await asyncio.to_thread(waiting, reader, feeds, why, busy)

    async with claims(settings.kafka) as held:
        return await claim_oldest(held, look, reviewer, settings.reviews.lease)


async def claim_oldest(
    held: Claims,
    look: Callable[[Sequence[str]], Awaitable[list[dict[str, Any]]]],
    reviewer: str,
    seconds: float,
    busy: Sequence[str] = (),
) -> dict[str, Any] | None:
    """The first image that nobody else holds, claimed for `reviewer`; `None` if there is none.

    Args:
        held: the claims, as far as they were read.
        look: what waits, the oldest first, without the ids that it is given.
        seconds: how long the claim holds.
        busy: ids that are left out from the start.

    Raises:
        QueryError, TransientSinkError
    """
    passed = list(busy)
    while True:
        candidates = await look(passed)
        if not candidates:
            return None
        for image in candidates:
            image_id = image["image_id"]
            if held.held_by(image_id) in (None, reviewer) and await held.claim(
                image_id, reviewer, seconds
            ):
                return image | {"claimed_until": _lease_end(seconds)}
            passed.append(image_id)


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
        known = known_images(reader, [image_id])
        if image_id not in known:
            raise NothingToDecideError(
                f"ClickHouse has no image '{image_id}'; look at the id, or wait until its row is "
                "written"
            )
        image = known[image_id]
    decision = new_decision(image_id, choice, reviewer, image, reason, labels)
    await publish_decision(settings, decision)
    return decision


def new_decision(
    image_id: str,
    choice: Choice,
    reviewer: str,
    image: Mapping[str, Any],
    reason: str = "",
    labels: Sequence[str] = (),
) -> ReviewDecision:
    """A decision that is made now.

    Args:
        image: what is known of it, as `known_images` gives it; may be empty.

    Raises:
        msgspec.ValidationError: a name, reason or label is too long.
    """
    return msgspec.convert(
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
    rows = last_decisions(reader, reviewer, [image_id] if image_id else [])
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
        "reviewers": _REVIEWERS,
        "rule_agreement": "SELECT * FROM rule_agreement ORDER BY decided DESC, rule",
        "rule_precision": "SELECT * FROM rule_precision ORDER BY rule, machine_verdict",
        "reviewer_agreement": "SELECT * FROM reviewer_agreement ORDER BY images DESC",
    }
    return {"queue": [queue_length(reader)]} | {
        name: reader.query(sql).to_pylist() for name, sql in queries.items()
    }


def _lease_end(seconds: float) -> str:
    end = datetime.now(UTC).timestamp() + seconds
    return rfc3339(int(end * 1000))
