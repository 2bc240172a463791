"""What is promised of people's decisions with real brokers and stores: kept once, known to all."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from front_process import ClickHouseServer
from shared_broker import SharedBroker

from imagewire.cli import run
from imagewire.reviews_claims import claims
from imagewire.reviews_in_worker import ReviewsInWorker
from imagewire.settings import Settings, load_settings
from operators.findings import Findings, Fingerprint, RuleHit, Verdict
from operators.frame import Frame, Origin
from sinks.clickhouse.reader import ClickHouseReader
from sinks.clickhouse.sink import ClickHouseSink
from sinks.kafka import ensure_topics
from streams.metrics import Metrics
from streams.tombstones import Covers, Tombstones, nothing_erased, tombstone_record

pytestmark = pytest.mark.timeout(180)

CONTENT = "ab" * 32


@dataclass
class Place:
    """A broker and a database of the test's own."""

    settings: Settings
    file: Path

    async def command(self, *arguments: str) -> int:
        return await asyncio.to_thread(run, [*arguments, "--config", str(self.file)])

    async def publish(self, *decisions: Any) -> None:
        kafka = self.settings.kafka
        producer = AIOKafkaProducer(**kafka.producer_options())
        await producer.start()
        for each in decisions:
            value = each if isinstance(each, bytes) else json.dumps(each).encode()
            await producer.send_and_wait(kafka.topics.reviews, value)
        await producer.stop()

    async def records(self, topic: str, count: int) -> list[Any]:
        """The first `count` records of a topic, however long they take, by their time."""
        consumer = AIOKafkaConsumer(
            getattr(self.settings.kafka.topics, topic),
            auto_offset_reset="earliest",
            fetch_max_wait_ms=50,
            **self.settings.kafka.client_options(),
        )
        await consumer.start()
        found: list[Any] = []
        async with asyncio.timeout(60):
            while len(found) < count:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += records
        await consumer.stop()
        return sorted(found, key=lambda record: (record.timestamp, record.offset))

    async def rows(self, sql: str, expected: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(60):
            while True:
                with ClickHouseReader(self.settings.clickhouse) as reader:
                    found = reader.query(sql).to_pylist()
                if len(found) >= expected:
                    return found
                await asyncio.sleep(0.1)


@pytest.fixture
async def place(
    apache_kafka: SharedBroker,
    clickhouse_front: ClickHouseServer,
    unique: Callable[[str], str],
    tmp_path: Path,
) -> Place:
    names = {
        topic: unique(topic)
        for topic in (
            *("images", "bulk", "findings", "verdicts", "review", "failed"),
            *("reviews", "overrides", "claims", "forgotten"),
        )
    }
    topics = "\n".join(f'{topic} = "{name}"' for topic, name in names.items())
    file = tmp_path / "imagewire.toml"
    file.write_text(
        f"""
[kafka]
bootstrap_servers = "{apache_kafka.address}"
partitions = 2
[kafka.topics]
{topics}
[stream]
group = "{unique("group")}"
[clickhouse]
host = "{clickhouse_front.host}"
port = {clickhouse_front.port}
username = "writer"
password = "{clickhouse_front.writer_password}"
database = "people_{secrets.token_hex(5)}"
"""
    )
    settings = load_settings(file).settings
    await ensure_topics(settings.kafka)
    sink = ClickHouseSink(settings.clickhouse)
    await sink.open()
    now = time.time_ns() // 1_000_000
    frames = []
    for number, action in enumerate(("allow", "block", "review")):
        frame = Frame(f"i{number}", "gate", now, Origin("images", 0, number, now), uri="file:///a")
        frame.findings = Findings(
            fingerprint=Fingerprint(CONTENT if number == 0 else f"{number:064x}"),
            verdict=Verdict(
                action,  # type: ignore[arg-type]
                "p-1",
                [RuleHit("nude", action)] if number else [],  # type: ignore[arg-type]
                audit=["nude"] if number == 1 else [],
            ),
        )
        frames.append(frame)
    await sink.write(frames)
    await sink.close()
    return Place(settings, file)


@asynccontextmanager
async def working(
    place: Place, forgotten: Covers = nothing_erased
) -> AsyncIterator[ReviewsInWorker]:
    """The reviewers' side of a worker, which knows all decisions that were there before."""
    reviews = ReviewsInWorker(place.settings, Metrics(), forgotten)
    task = asyncio.create_task(reviews.run())
    try:
        async with asyncio.timeout(60):
            await reviews.ready()
        yield reviews
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def verdict(action: Any, reviews: ReviewsInWorker, image: str, content: str) -> Verdict:
    frame = Frame(image, "gate", 0, Origin("images", 0, 0, 0))
    frame.findings = Findings(fingerprint=Fingerprint(content), verdict=Verdict(action, "p-1", []))
    reviews.people_first([frame])
    assert frame.findings.verdict is not None
    return frame.findings.verdict


async def test_a_decision_is_stored_published_and_known_to_every_worker(place: Place) -> None:
    async with working(place) as one, working(place) as other:
        await place.publish(
            {"image_id": "i0", "decision": "block", "reviewer": "ann", "labels": ["gore"]}
        )
        [record] = await place.records("verdicts", 1)
        published = json.loads(record.value)
        assert record.key == b"i0"
        assert published["action"] == "block"
        assert published["decided_by"] == "person"
        assert published["machine_action"] == "allow"
        assert (published["feed"], published["policy"]) == ("gate", "p-1")
        assert published["content_id"] == CONTENT
        [row] = await place.rows("SELECT * FROM reviews", 1)
        assert row["decision_id"] == published["decision_id"]
        assert (row["reviewer"], row["machine_verdict"], row["labels"]) == (
            "ann",
            "allow",
            ["gore"],
        )
        [current] = await place.rows("SELECT * FROM current_verdicts WHERE image_id = 'i0'", 1)
        assert (current["verdict"], current["decided_by"]) == ("block", "person")
        # by image, and by content, which the decision did not name
        await place.records("overrides", 2)
        async with asyncio.timeout(30):
            for worker in (one, other):
                while verdict("allow", worker, "another", CONTENT).action != "block":  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
    async with working(place) as later:
        assert verdict("allow", later, "i0", "").action == "block"


async def test_a_decision_that_is_delivered_again_leaves_the_same_rows(place: Place) -> None:
    decision = {
        "image_id": "i1",
        "decision": "allow",
        "reviewer": "ann",
        "decision_id": "d1",
        "decided_at": "2026-01-31T12:00:00Z",
    }
    async with working(place):
        await place.publish(decision, decision)
        await place.records("verdicts", 2)
        rows = await place.rows("SELECT * FROM reviews", 1)
    assert [row["decision_id"] for row in rows] == ["d1"]
    [judged] = await place.rows("SELECT * FROM rule_precision", 1)
    assert (judged["rule"], judged["audited"], judged["right"]) == ("nude", 1, 0)


async def test_an_earlier_decision_that_comes_later_is_history_and_no_verdict(place: Place) -> None:
    late = {
        "image_id": "i2",
        "decision": "block",
        "reviewer": "ann",
        "decided_at": "2026-02-01T12:00:00Z",
    }
    async with working(place) as reviews:
        await place.publish(late)
        await place.records("verdicts", 1)
        await place.publish(
            late | {"decision": "allow", "decided_at": "2026-01-01T12:00:00Z", "reviewer": "bob"}
        )
        assert len(await place.rows("SELECT * FROM reviews", 2)) == 2
        [current] = await place.rows("SELECT * FROM current_verdicts WHERE image_id = 'i2'", 1)
        assert (current["verdict"], current["reviewer"]) == ("block", "ann")
        assert verdict("allow", reviews, "i2", "").action == "block"
        await place.publish(late | {"decision": "withdraw", "decided_at": "2026-02-02T12:00:00Z"})
        # one for each that stood when it came, none for the one that came too late
        records = await place.records("verdicts", 2)
        published = [json.loads(record.value) for record in records]
        assert [(each["action"], each["decided_by"]) for each in published] == [
            ("block", "person"),
            ("review", "policy"),
        ]


async def test_what_is_no_decision_is_a_dead_letter_and_holds_nothing_up(place: Place) -> None:
    async with working(place):
        await place.publish(
            b"hello",
            {"image_id": "i1", "decision": "perhaps", "reviewer": "ann"},
            {"image_id": "i1", "decision": "allow", "reviewer": "ann"},
        )
        letters = await place.records("failed", 2)
        await place.records("verdicts", 1)
    headers = [dict(letter.headers) for letter in letters]
    assert {each["imagewire-stage"] for each in headers} == {b"review"}
    assert {each["imagewire-source-topic"].decode() for each in headers} == {
        place.settings.kafka.topics.reviews
    }
    assert sorted(letter.value for letter in letters)[0] == b"hello"


async def test_decisions_on_images_of_a_feed_that_was_erased_are_dropped(place: Place) -> None:
    erased = Tombstones()
    erased.apply(*tombstone_record("feed", "cellar", time.time_ns() // 1_000_000 + 60_000))
    decision = {"decision": "block", "reviewer": "ann"}
    await place.publish({"image_id": "gone", "feed": "cellar"} | decision)
    await place.publish({"image_id": "i1"} | decision)
    async with working(place, erased.covers):
        await place.records("verdicts", 1)
        assert [row["image_id"] for row in await place.rows("SELECT * FROM reviews", 1)] == ["i1"]


async def test_decisions_that_nobody_took_are_taken_by_the_next_worker(place: Place) -> None:
    await place.publish({"image_id": "i1", "decision": "allow", "reviewer": "ann"})
    async with working(place):
        await place.rows("SELECT * FROM reviews", 1)
        await place.records("verdicts", 1)
    await place.publish({"image_id": "i0", "decision": "block", "reviewer": "ann"})
    async with working(place):
        await place.rows("SELECT * FROM reviews", 2)
        verdicts = await place.records("verdicts", 2)
    assert [json.loads(record.value)["image_id"] for record in verdicts] == ["i1", "i0"]


async def test_a_verdict_of_a_person_stands_when_the_decision_itself_is_gone(place: Place) -> None:
    now = time.time_ns() // 1_000_000
    frame = Frame("copy", "door", now, Origin("images", 0, 9, now))
    frame.findings = Findings(
        fingerprint=Fingerprint("99" * 32),
        verdict=Verdict("block", "p-1", decided_by="person", machine_action="allow"),
    )
    sink = ClickHouseSink(place.settings.clickhouse)
    await sink.open()
    await sink.write([frame])
    await sink.close()
    [row] = await place.rows("SELECT * FROM current_verdicts WHERE image_id = 'copy'", 1)
    assert (row["verdict"], row["decided_by"], row["machine_verdict"]) == (
        "block",
        "person",
        "allow",
    )


async def test_two_reviewers_get_different_images_and_the_queue_ends(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown() -> Any:
        return json.loads(capsys.readouterr().out)

    assert await place.command("review", "next", "--reviewer", "ann", "--json") == 0
    first = shown()
    assert (first["image_id"], first["why"], first["uri"]) == ("i1", "audit", "file:///a")
    assert [hit["rule"] for hit in first["rules"]] == ["nude"]
    assert await place.command("review", "next", "--reviewer", "bob", "--json") == 0
    second = shown()
    assert (second["image_id"], second["why"]) == ("i2", "policy")
    # Ann gets hers again, and nothing is left for anybody else.
    assert await place.command("review", "next", "--reviewer", "ann", "--json") == 0
    assert shown()["image_id"] == "i1"
    assert await place.command("review", "next", "--reviewer", "cid") == 1
    assert "nothing waits" in capsys.readouterr().err

    async with working(place):
        assert await place.command("review", "decide", "i1", "block", "--reviewer", "ann") == 0
        [row] = await place.rows("SELECT * FROM reviews", 1)
        assert (row["decision"], row["reviewer"]) == ("block", "ann")
        [judged] = await place.rows("SELECT * FROM rule_precision", 1)
        assert (judged["audited"], judged["right"]) == (1, 1)
        capsys.readouterr()
        assert await place.command("review", "stats", "--json") == 0
        stats = shown()
        assert stats["queue"][0]["policy"] == 1
        assert stats["queue"][0]["audit"] == 0
        # What is taken back waits again, for everybody.
        assert await place.command("review", "undo", "--reviewer", "ann") == 0
        await place.rows("SELECT * FROM reviews", 2)
        assert await place.command("review", "undo", "--reviewer", "ann") == 1
        capsys.readouterr()
        assert await place.command("review", "next", "--reviewer", "cid") == 0
        assert "i1" in capsys.readouterr().out
    assert await place.command("review", "decide", "nobody", "block", "--reviewer", "ann") == 1
    assert "no image 'nobody'" in capsys.readouterr().err


async def test_of_two_who_claim_at_once_one_gets_the_image(place: Place) -> None:
    kafka = place.settings.kafka
    async with claims(kafka) as one, claims(kafka) as other:
        won = await asyncio.gather(one.claim("i1", "ann", 60), other.claim("i1", "bob", 60))
        assert sorted(won) == [False, True]
        winner, loser = ("ann", "bob") if won[0] else ("bob", "ann")
        assert not await other.claim("i1", loser, 60)
        assert await one.claim("i1", winner, 60)
        await one.give_back("i1", winner)
        assert await other.claim("i1", loser, 0.001)
        await asyncio.sleep(0.01)
        assert await one.claim("i1", winner, 60)  # the lease was over
