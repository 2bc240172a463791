"""What is promised of replaying dead letters: made good once, doubled never, stopped at last."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from front_process import ClickHouseServer, QdrantServer
from shared_broker import SharedBroker
from topic_reading import everything_on
from ultralytics.utils import ASSETS

from imagewire.cli import run
from imagewire.dead_letters import Letter, LetterFilter, newest_of_each_image
from imagewire.replaying import plan_replay, replay_headers, since_ms
from imagewire.settings import load_settings
from imagewire.worker import Worker
from sinks.clickhouse.reader import ClickHouseReader, QueryError
from sinks.kafka import TopicNames, ensure_topics
from sinks.qdrant.reader import VectorReader

pytestmark = pytest.mark.timeout(600)

PHOTO = (ASSETS / "bus.jpg").read_bytes()


@dataclass
class Place:
    """Settings of a worker and of the commands beside it, and what they lead to."""

    file: Path
    photos: Path

    @property
    def settings(self) -> Any:
        return load_settings(self.file).settings

    async def command(self, *arguments: str) -> int:
        return await asyncio.to_thread(run, ["replay", *arguments, "--config", str(self.file)])

    async def publish(self, value: bytes | None, topic: str = "images", **options: Any) -> None:
        kafka = self.settings.kafka
        producer = AIOKafkaProducer(**kafka.producer_options())
        await producer.start()
        await producer.send_and_wait(getattr(kafka.topics, topic), value, **options)
        await producer.stop()

    async def records(self, topic: str) -> list[Any]:
        """Everything that is on one of the topics now."""
        kafka = self.settings.kafka
        return await everything_on(kafka.client_options(), getattr(kafka.topics, topic), 2)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with ClickHouseReader(self.settings.clickhouse) as reader:
            return [tuple(row.values()) for row in reader.query(sql).to_pylist()]

    async def until(self, sql: str, expected: list[tuple[Any, ...]], seconds: float = 180) -> None:
        found: list[tuple[Any, ...]] | None = None
        try:
            async with asyncio.timeout(seconds):
                while found != expected:
                    await asyncio.sleep(0.2)
                    with suppress(QueryError):  # the worker has not made the tables yet
                        found = await asyncio.to_thread(self.rows, sql)
        except TimeoutError:
            assert found == expected

    async def points(self) -> list[str]:
        async with VectorReader(self.settings.qdrant) as reader:
            size = 1280  # of the embedder that is shipped
            found = await reader.search(vector=[1.0] + [0.0] * (size - 1), limit=50)
        return sorted(point.image_id for point in found)

    @asynccontextmanager
    async def worker(self, **changes: Any) -> AsyncIterator[None]:
        """A worker that runs meanwhile; `decode_max_pixels=9` changes `decode.max_pixels`."""
        settings = self.settings
        for key, value in changes.items():
            table, _, name = key.partition("_")
            section = getattr(settings, table).model_copy(update={name: value})
            settings = settings.model_copy(update={table: section})
        worker = Worker(settings)
        running = asyncio.create_task(worker.run())
        try:
            yield
        finally:
            worker.stop()
            await running


@pytest.fixture
async def place(
    kafka_broker: SharedBroker,
    clickhouse_front: ClickHouseServer,
    qdrant_front: QdrantServer,
    tmp_path: Path,
) -> Place:
    name = f"replay_{secrets.token_hex(4)}"
    photos = tmp_path / "photos"
    photos.mkdir()
    others = "".join(
        f"[operators.{operator}]\nenabled = false\n"
        for operator in ("objects", "text", "scores", "fingerprint")
    )
    # All of them: what other tests ban, decide or publish is no affair of these workers.
    topics = "\n".join(f'{topic} = "{name}.{topic}"' for topic in TopicNames.model_fields)
    file = tmp_path / "imagewire.toml"
    file.write_text(
        f"""
[kafka]
bootstrap_servers = "{kafka_broker.address}"
partitions = 2
[kafka.topics]
{topics}
[stream]
group = "{name}"
session_timeout = 4
clickhouse_linger = 0.05
max_attempts = 3
[fetch]
file_roots = ["{photos}"]
[clickhouse]
host = "{clickhouse_front.host}"
port = {clickhouse_front.port}
username = "writer"
password = "{clickhouse_front.writer_password}"
database = "{name}"
[qdrant]
host = "{qdrant_front.host}"
grpc_port = {qdrant_front.grpc_port}
api_key = "{qdrant_front.api_key}"
collection = "{name}"
[http]
enabled = false
{others}
"""
    )
    place = Place(file, photos)
    await ensure_topics(place.settings.kafka)
    return place


def reference(place: Place, **fields: Any) -> bytes:
    uri = (place.photos / "bus.jpg").as_uri()
    return json.dumps({"uri": uri, "feed": "gate", **fields}).encode()


async def fail_five(place: Place) -> None:
    """Five records that fail: by the file that is missing, by a limit that is too low, for good."""
    await place.publish(reference(place), key=b"gate", headers=[("trace", b"\x01"), ("nil", None)])
    await place.publish(reference(place, id="named"), key=b"gate")
    await place.publish(reference(place, id="dated", captured_at="2026-01-31T12:00:00.250Z"))
    await place.publish(PHOTO, key=b"gate", headers=[("feed", b"gate")])
    await place.publish(b"no picture", headers=[("feed", b"gate")])
    async with place.worker(decode_max_pixels=10_000):
        await place.until("SELECT count() FROM failures", [(5,)])


async def test_a_failure_is_made_good_once_and_what_keeps_failing_stops(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    await fail_five(place)
    [first] = [r for r in await place.records("failed") if ("trace", b"\x01") in r.headers]
    before = await asyncio.to_thread(
        place.rows, "SELECT image_id, event_time FROM failures ORDER BY image_id"
    )
    capsys.readouterr()

    # A dry run shows all five and publishes none.
    assert await place.command("--dry-run", "--json") == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(letter["stage"] for letter in shown) == ["decode", *["fetch"] * 3, "parse"]
    assert {letter["outcome"] for letter in shown} == {"would be replayed"}
    assert await place.command("--dry-run", "--stage", "parse") == 0
    assert "not-a-record" in capsys.readouterr().out
    assert len(await place.records("images")) == 5

    # The causes go away, and two people replay at the same time.
    (place.photos / "bus.jpg").write_bytes(PHOTO)
    assert await asyncio.gather(place.command("--json"), place.command("--json")) == [0, 0]
    images = await place.records("images")
    assert len(images) == 15
    original, *copies = [r for r in images if ("trace", b"\x01") in r.headers]
    for copy in copies:
        assert (copy.key, copy.value) == (original.key, original.value)
        assert copy.headers[:2] == original.headers == first.headers[:2]
        assert dict(copy.headers)["imagewire-attempt"] == b"1"
    async with place.worker():
        await place.until(
            "SELECT (SELECT count() FROM images), (SELECT max(attempt) FROM failures)", [(4, 2)]
        )
        await place.until("SELECT stage FROM failures", [("parse",)])
        after = await asyncio.to_thread(
            place.rows,
            "SELECT image_id, event_time FROM images UNION ALL "
            "SELECT image_id, event_time FROM failures ORDER BY image_id",
        )
        # Each is found where its failure stood: same id, same event time, one row, one point.
        assert sorted(after) == before
        [unparsable] = await asyncio.to_thread(place.rows, "SELECT image_id FROM failures")
        named = sorted(image_id for image_id, _ in after if image_id != unparsable[0])
        assert await place.points() == named

        # What keeps failing is tried until it has failed max_attempts times.
        capsys.readouterr()
        assert await place.command() == 0
        assert "replayed 1 dead letter; 4 have succeeded since" in capsys.readouterr().err
        await place.until("SELECT attempt FROM failures", [(3,)])
        assert await place.command() == 1
        said = " ".join(capsys.readouterr().err.split())
        assert "it has failed 3 times, and stream.max_attempts is 3" in said
        assert "replayed 0 dead letters; 1 refused" in said
    assert len(await place.records("images")) == 16


async def test_a_value_that_was_too_large_for_a_letter_is_read_again_where_it_stands(
    place: Place,
) -> None:
    large = PHOTO + b"\0" * 1_000_000
    await place.publish(large, headers=[("image-id", b"large")])
    async with place.worker(decode_max_pixels=10_000, kafka_max_record_bytes=500_000):
        await place.until("SELECT image_id FROM failures", [("large",)])
    [letter] = await place.records("failed")
    assert letter.value is None
    assert await place.command("--json") == 0
    first, again = await place.records("images")
    assert again.value == first.value == large
    assert "imagewire-value-omitted" not in dict(again.headers)
    async with place.worker():
        await place.until("SELECT image_id FROM images", [("large",)])
        await place.until("SELECT image_id FROM failures", [])
    assert await place.points() == ["large"]


def letter_headers(place: Place, **changes: str) -> list[tuple[str, bytes]]:
    named = {
        "stage": "fetch",
        "reason": "http-status",
        "image_id": "photo",
        "feed": "gate",
        "source_topic": place.settings.kafka.topics.images,
        "source_partition": "0",
        "source_offset": "0",
        "timestamp": "1790000000000",
        "attempt": "1",
    } | changes
    return [(f"imagewire-{name.replace('_', '-')}", text.encode()) for name, text in named.items()]


async def test_what_cannot_be_replayed_is_told_and_the_rest_is_replayed_without_clickhouse(
    place: Place, capsys: pytest.CaptureFixture[str], unused_tcp_port_factory: Callable[[], int]
) -> None:
    text = place.file.read_text()
    port = place.settings.clickhouse.port
    place.file.write_text(text.replace(f"port = {port}", f"port = {unused_tcp_port_factory()}"))

    async def letter(value: bytes | None, **changes: str) -> None:
        headers = letter_headers(place, **changes)
        await place.publish(value, "failed", key=b"gate", headers=headers)

    await letter(reference(place, id="good"), image_id="good")
    await letter(None, image_id="gone", value_omitted="12", source_offset="77")
    # The topic was deleted and made anew: another record stands where the letter points to.
    await place.publish(b"{}", key=b"gate", partition=0)
    await letter(None, image_id="replaced", value_omitted="12")
    await letter(b"{}", image_id="elsewhere", source_topic="payments")
    await place.publish(b"not of ours", "failed", headers=[("imagewire-stage", b"fetch")])
    await letter(b"{}", image_id="odd", source_offset="9" * 5000)

    assert await place.command("--limit", "3") == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "2 records on" in said
    assert "are no dead letters of Imagewire's" in said
    assert "which of them have succeeded since is not known" in said
    assert "image 'gone': its value was too large for a dead letter and no longer stands at" in said
    assert "image 'replaced': its value was too large" in said
    assert "image 'elsewhere': it came from 'payments', no topic of images" in said
    assert "replayed 1 dead letter; 3 refused" in said
    values = [record.value for record in await place.records("images")]
    assert sorted(values, key=len) == [b"{}", reference(place, id="good")]


LETTER = Letter(
    partition=0,
    offset=0,
    failed_at_ms=1_790_000_000_000,
    image_id="photo",
    feed="gate",
    stage="fetch",
    reason="http-status",
    detail="",
    attempt=1,
    source=("images", 0, 0),
    first_timestamp_ms=1_789_999_999_000,
    captured_at_ms=None,
    omitted_bytes=None,
)


def planned(letters: list[Letter], wanted: LetterFilter | None = None, **options: Any) -> Any:
    return plan_replay(
        letters,
        wanted or LetterFilter(),
        **{
            "made_good": lambda letters: set(),
            "topics": ("images", "images.bulk"),
            "max_attempts": 5,
            **options,
        },
    )


def test_only_the_newest_letter_of_an_image_counts() -> None:
    newer = replace(LETTER, offset=9, attempt=2, stage="decode")
    other_time = replace(LETTER, captured_at_ms=5, offset=3)
    assert newest_of_each_image([newer, LETTER, other_time]) == [other_time, newer]
    assert planned([LETTER, newer], LetterFilter(stages=["fetch"])).letters == []
    assert planned([LETTER, newer], LetterFilter(stages=["decode"])).letters == [newer]


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        (LetterFilter(), True),
        (LetterFilter(stages=["parse", "fetch"]), True),
        (LetterFilter(stages=["fetch"], reasons=["timeout"]), False),
        (LetterFilter(image_ids={"photo"}, feeds=["gate"]), True),
        (LetterFilter(image_ids={"another"}), False),
        (LetterFilter(feeds=["door"]), False),
        (LetterFilter(since_ms=1_790_000_000_000), True),
        (LetterFilter(since_ms=1_790_000_000_001), False),
    ],
)
def test_filters_must_all_hold(wanted: LetterFilter, meant: bool) -> None:
    assert planned([LETTER], wanted).letters == ([LETTER] if meant else [])


def test_the_oldest_failures_come_first_and_refusals_do_not_count_against_the_limit() -> None:
    letters = [
        replace(LETTER, image_id=str(n), failed_at_ms=100 - n, attempt=9 if n == 4 else 1)
        for n in range(5)
    ]
    plan = planned(letters, limit=2)
    assert [letter.image_id for letter in plan.letters] == ["3", "2"]
    assert [refused.letter.image_id for refused in plan.refused] == ["4"]


def test_what_nobody_was_told_of_an_image_neither_hides_its_failure_nor_fails_the_replay() -> None:
    untold = replace(LETTER, stage="webhook", source=("images.verdicts", 0, 0), attempt=2)
    assert planned([LETTER, untold]).letters == [LETTER]
    assert planned([untold]).refused == []
    [refused] = planned([untold], LetterFilter(stages=("webhook",))).refused
    assert "no topic of images" in refused.refused


def test_a_letter_cannot_have_anything_published_to_a_topic_that_takes_no_images() -> None:
    plan = planned([replace(LETTER, source=("payments", 0, 0))])
    assert plan.letters == []
    assert "no topic of images" in plan.refused[0].refused


def test_a_replay_carries_the_producers_headers_and_its_own_three() -> None:
    given = [("trace", b"1"), ("nil", None), ("feed", b"gate"), ("trace", b"2")]
    own = [("imagewire-image-id", b"x"), ("imagewire-timestamp", b"5"), ("imagewire-attempt", b"1")]
    dropped = [("imagewire-stage", b"fetch"), ("imagewire-value-omitted", b"7")]
    assert replay_headers([*given, *dropped, *own]) == [*given, *own]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("30s", datetime(2026, 1, 31, 11, 59, 30, tzinfo=UTC)),
        ("2h", datetime(2026, 1, 31, 10, tzinfo=UTC)),
        ("7d", datetime(2026, 1, 24, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00+02:00", datetime(2026, 1, 31, 10, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
    ],
)
def test_since_is_a_time_or_how_long_ago(text: str, moment: datetime) -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert since_ms(text, now) == moment.timestamp() * 1000


@pytest.mark.parametrize(
    "arguments", [["--since", "yesterday"], ["--since", "999999d"], ["--since", "2x"]]
)
def test_a_time_that_is_none_is_explained(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["replay", *arguments]) == 2
    assert "--since" in capsys.readouterr().err


def test_without_a_broker_the_command_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], unused_tcp_port_factory: Callable[[], int]
) -> None:
    file = tmp_path / "imagewire.toml"
    file.write_text(f'[kafka]\nbootstrap_servers = "127.0.0.1:{unused_tcp_port_factory()}"\n')
    assert run(["replay", "--config", str(file)]) == 3
    assert "nothing answers" in capsys.readouterr().err
