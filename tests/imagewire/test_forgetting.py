"""What is promised of erasing: gone from every store, reported, repeatable, and by time as well."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from front_process import ClickHouseServer, QdrantServer
from shared_broker import SharedBroker
from topic_reading import everything_on

from imagewire import forgetting
from imagewire.cli import run
from imagewire.retention import Retention
from imagewire.settings import Settings, load_settings
from operators.findings import Embedding, Findings, Fingerprint, Verdict
from operators.frame import Frame, Origin
from sinks.clickhouse.reader import ClickHouseReader
from sinks.clickhouse.reviews import ReviewStore
from sinks.clickhouse.sink import ClickHouseSink
from sinks.kafka import ensure_topics
from sinks.kafka.settings import TopicNames
from sinks.qdrant.reader import VectorReader
from sinks.qdrant.sink import QdrantSink
from streams.metrics import Metrics
from streams.reviews import Decision
from streams.tombstones import Tombstones

pytestmark = pytest.mark.timeout(180)

CONTENT = "ab" * 32
DAY_MS = 86_400_000


@dataclass
class Place:
    """Stores with four images: two of `gate` with the same bytes, one of `door`, one failed."""

    settings: Settings
    file: Path

    async def command(self, *arguments: str) -> int:
        return await asyncio.to_thread(run, ["forget", *arguments, "--config", str(self.file)])

    async def rows(self, table: str) -> list[str]:
        def ask() -> list[str]:
            with ClickHouseReader(self.settings.clickhouse) as reader:
                found = reader.query(f"SELECT image_id FROM {table} ORDER BY image_id")
                return [str(row["image_id"]) for row in found.to_pylist()]

        return await asyncio.to_thread(ask)

    async def points(self) -> list[str]:
        async with VectorReader(self.settings.qdrant) as reader:
            found = await reader.search(vector=[1.0, 0.0], limit=50)
        return sorted(each.image_id for each in found)

    async def tombstones(self) -> Tombstones:
        found = Tombstones()
        for record in await self.records("forgotten"):
            found.apply(record.key, record.value)
        return found

    async def records(self, topic: str) -> list[Any]:
        kafka = self.settings.kafka
        return await everything_on(
            kafka.client_options(), getattr(kafka.topics, topic), kafka.partitions
        )


def frame(image: str, content: str, feed: str, at: int) -> Frame:
    made = Frame(image, feed, at, Origin("images", 0, abs(hash(image)) % 10**6, at))
    made.captured_at_given = True
    made.findings = Findings(
        fingerprint=Fingerprint(content),
        verdict=Verdict("review", "p"),
        embedding=Embedding("net@1", [0.6, 0.8]),
    )
    return made


@pytest.fixture
async def place(
    apache_kafka: SharedBroker,
    clickhouse_front: ClickHouseServer,
    qdrant_front: QdrantServer,
    unique: Callable[[str], str],
    tmp_path: Path,
) -> Place:
    topics = "\n".join(f'{name} = "{unique(name)}"' for name in TopicNames.model_fields)
    file = tmp_path / "imagewire.toml"
    file.write_text(
        f"""
[kafka]
bootstrap_servers = "{apache_kafka.address}"
partitions = 1
[kafka.topics]
{topics}
[clickhouse]
host = "{clickhouse_front.host}"
port = {clickhouse_front.port}
username = "writer"
password = "{clickhouse_front.writer_password}"
database = "forget_{secrets.token_hex(5)}"
[qdrant]
host = "{qdrant_front.host}"
grpc_port = {qdrant_front.grpc_port}
api_key = "{qdrant_front.api_key}"
collection = "{unique("forget")}"
"""
    )
    settings = load_settings(file).settings
    await ensure_topics(settings.kafka)
    now = time.time_ns() // 1_000_000
    frames = [
        frame("a", CONTENT, "gate", now),
        frame("b", CONTENT, "gate", now),
        frame("c", "cd" * 32, "door", now),
        frame("d", "ef" * 32, "gate", now),
    ]
    frames[3].fail("fetch", "not-found", "it is not there")
    for sink in (ClickHouseSink(settings.clickhouse), QdrantSink(settings.qdrant, "net@1", 2)):
        await sink.open()
        await sink.write(frames)
        await sink.close()
    return Place(settings, file)


async def test_an_image_is_erased_everywhere_and_leaves_a_tombstone(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await place.command("--id", "a", "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert {each["place"]: each["count"] for each in plan["erased"]}["images_raw"] == 1
    assert await place.rows("images") == ["a", "b", "c"]
    assert len(await place.tombstones()) == 0

    assert await place.command("--id", "a", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["complete"]
    counts = {each["place"]: each["count"] for each in report["erased"]}
    assert counts["images_raw"] == 1
    assert sum(each["count"] for each in report["erased"] if each["store"] == "qdrant") == 1
    assert place.settings.kafka.topics.verdicts in report["kept_until_expiry_ms"]
    assert report["kept_until_expiry_ms"][place.settings.kafka.topics.verdicts] == 7 * DAY_MS
    assert await place.rows("images") == ["b", "c"]
    assert await place.points() == ["b", "c"]
    assert (await place.tombstones()).covers("a")
    # Once more finds nothing, and is no error.
    assert await place.command("--id", "a") == 0
    shown = capsys.readouterr()
    assert "Kafka cannot erase single records" in shown.err
    assert "for up to 7 days" in shown.err
    # By mistake: what comes from now on is taken again.
    assert await place.command("--id", "a", "--lift") == 0
    assert "stays erased" in capsys.readouterr().err
    assert not (await place.tombstones()).covers("a")


async def test_a_content_takes_every_image_that_has_it(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # There may be millions of them: they are gone through some at a time.
    monkeypatch.setattr(forgetting, "AT_ONCE", 1)
    assert await place.command("--content", CONTENT, "--json", "--dry-run") == 0
    plan = json.loads(capsys.readouterr().out)
    counts = {each["store"]: each["count"] for each in plan["erased"] if each["count"]}
    assert counts == {"clickhouse": 2, "qdrant": 2}, "each is counted once"
    assert await place.command("--content", CONTENT, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["images"], report["image_ids"]) == (2, ["a", "b"])
    assert (await place.rows("images"), await place.points()) == (["c"], ["c"])
    tombstones = await place.tombstones()
    assert tombstones.covers("b")
    assert tombstones.covers("of a later day", CONTENT)


async def test_a_feed_takes_its_failures_and_decisions_too_and_asks_first(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ReviewStore(place.settings.clickhouse)
    decision = Decision("a", "block", "ann", 1, "d-1", feed="gate")
    await store.store([(decision, None, ("reviews", 0, 0, 1))])
    await store.close()
    assert await place.command("--feed", "gate") == 2
    assert "--yes" in capsys.readouterr().err
    minute_ns, now = 60 * 10**9, time.time_ns()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: now + 30 * minute_ns)
        assert await place.command("--feed", "gate", "--yes") == 0
    tombstones = await place.tombstones()
    assert tombstones.covers("e", feed="gate", arrived_ms=now // 10**6)
    later = (now + 10 * minute_ns) // 10**6
    assert not tombstones.covers("e", feed="gate", arrived_ms=later), "by the broker's clock"
    assert (await place.rows("images"), await place.points()) == (["c"], ["c"])
    assert await place.rows("failures") == []
    assert await place.rows("reviews_raw") == []
    taken_back = {record.key: record.value for record in await place.records("overrides")}
    assert taken_back == {b"image:a": None}


async def test_a_store_that_is_away_is_reported_and_the_others_are_done(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = place.file.with_name("broken.toml")
    text = place.file.read_text()
    port = place.settings.qdrant.grpc_port
    broken.write_text(text.replace(f"grpc_port = {port}", "grpc_port = 9\ntimeout = 1"))
    whole, place.file = place.file, broken
    assert await place.command("--id", "a", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["complete"]
    assert [each["store"] for each in report["erased"] if each["error"]] == ["qdrant"]
    assert await place.rows("images") == ["b", "c"]
    assert await place.points() == ["a", "b", "c"]
    place.file = whole
    assert await place.command("--id", "a") == 0
    assert await place.points() == ["b", "c"]


async def test_it_says_what_is_wrong_with_what_was_asked(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await place.command() == 2
    assert "name what is to be erased" in capsys.readouterr().err
    assert await place.command("--content", "abc") == 2
    assert "SHA-256" in capsys.readouterr().err


async def test_rows_and_vectors_go_when_their_time_is_over(place: Place) -> None:
    old = time.time_ns() // 1_000_000 - 10 * DAY_MS
    clickhouse, qdrant = place.settings.clickhouse, place.settings.qdrant
    sink = ClickHouseSink(clickhouse)
    await sink.open()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: old * 1_000_000)
        await sink.write([frame("old", "12" * 32, "gate", old), frame("aged", "34" * 32, "x", old)])
        vectors = QdrantSink(qdrant, "net@1", 2)
        await vectors.open()
        await vectors.write([frame("old", "12" * 32, "gate", old), frame("aged", "3", "x", old)])
        await vectors.close()
    await sink.close()
    assert await place.rows("images") == ["a", "aged", "b", "c", "old"]

    def settings_with(**retention: Any) -> Settings:
        table = place.settings.retention.model_copy(update=retention)
        return place.settings.model_copy(update={"retention": table})

    assert not Retention(place.settings, Metrics()).is_needed
    metrics = Metrics()
    deleted = await Retention(settings_with(feeds={"gate": 7}), metrics).look()
    assert (deleted["images_raw"], deleted["vectors"]) == (1, 1)
    assert await place.rows("images") == ["a", "aged", "b", "c"]
    assert await place.points() == ["a", "aged", "b", "c"]
    counted = metrics.registry.get_sample_value("imagewire_expired_total", {"store": "images_raw"})
    assert counted == 1
    await Retention(settings_with(images_days=7, vectors_days=7), Metrics()).look()
    assert await place.rows("images") == ["a", "b", "c"]
    assert await place.points() == ["a", "b", "c"]
