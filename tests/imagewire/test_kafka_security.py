"""Every Kafka client that Imagewire opens logs in as the settings say, or says why it cannot."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates, make_certificates
from secure_kafka import USER, SecureKafka, secure_kafka
from shared_broker import missing

from imagewire.cli import run
from imagewire.dead_letters import dead_letters
from imagewire.publishing import Publication, image_publisher
from operators.findings import Verdict
from operators.frame import Frame, Lane, Origin
from sinks.kafka import KafkaSettings, KafkaSink, TopicNames, ensure_topics
from sinks.sink import PermanentSinkError, SinkError, TransientSinkError
from streams.app import ImageStream
from streams.settings import StreamSettings

pytestmark = [pytest.mark.xdist_group("secure-kafka"), pytest.mark.timeout(300)]

PASSWORD = 'right-"hush"-$\\é'.replace('"', "").replace("\\", "")
WRONG = "wrong-hush"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates")
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def broker(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SecureKafka]:
    if reason := missing("apache"):
        if os.environ.get("CI"):
            pytest.fail(f"CI must test on Apache Kafka: {reason}")
        pytest.skip(f"Apache Kafka cannot run here: {reason}")
    with secure_kafka(tmp_path_factory.mktemp("secure-kafka"), certificates, PASSWORD) as broker:
        yield broker


def an_unsigned_token(**claims: Any) -> str:
    def part(content: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    now = int(time.time())
    return f"{part({'alg': 'none'})}.{part({'iat': now, 'exp': now + 600} | claims)}."


@pytest.fixture
def settings(
    broker: SecureKafka,
    certificates: Certificates,
    unique: Callable[[str], str],
    tmp_path: Path,
) -> Callable[..., KafkaSettings]:
    prefix = unique("secure")
    token = tmp_path / "token"
    token.write_text(an_unsigned_token(sub=USER) + "\n")

    def settings(mechanism: str, **changes: Any) -> KafkaSettings:
        return KafkaSettings(
            **{
                "bootstrap_servers": broker.secure_address,
                "security_protocol": "SASL_SSL",
                "ssl_cafile": certificates.authority,
                "sasl_mechanism": mechanism,
                "sasl_username": USER,
                "sasl_password": PASSWORD,
                "sasl_token_file": token,
                "request_timeout_ms": 20_000,
                "partitions": 1,
                "topics": TopicNames(
                    **{name: f"{prefix}.{name}" for name in TopicNames.model_fields}
                ),
            }
            | changes
        )

    return settings


MECHANISMS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]


async def consumed(settings: KafkaSettings) -> Origin:
    """The first record that the Faust side gets."""
    taken: asyncio.Future[Origin] = asyncio.get_running_loop().create_future()

    async def handle(origin: Origin, lane: Lane, acknowledge: Callable[[], object]) -> None:
        acknowledge()
        if not taken.done():
            taken.set_result(origin)

    async def drain() -> None: ...

    stream = ImageStream(
        settings,
        StreamSettings(group=settings.topics.images, session_timeout=6),
        handle=handle,
        drain=drain,
    )
    try:
        await stream.start()
        watching = asyncio.create_task(stream.watch())
        await asyncio.wait([taken, watching], timeout=90, return_when=asyncio.FIRST_COMPLETED)
        watching.cancel()
        return taken.result()
    finally:
        await stream.stop()


async def made_topics(settings: KafkaSettings) -> list[str]:
    """A broker that has only just started may not know its controller yet."""
    async with asyncio.timeout(90):
        while True:
            try:
                return await ensure_topics(settings)
            except TransientSinkError:
                await asyncio.sleep(0.5)


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_the_right_credentials_open_every_client(
    mechanism: str, settings: Callable[..., KafkaSettings]
) -> None:
    kafka = settings(mechanism)
    assert set(await made_topics(kafka)) == set(kafka.topics.all())  # the administration client
    async with image_publisher(kafka) as publisher:  # a producer
        published = await publisher.publish(Publication("photo", "gate", uri="https://a.example/b"))
    origin = await consumed(kafka)  # Faust's consumer
    assert (origin.partition, origin.offset) == (published.partition, published.offset)
    frame = Frame("photo", "gate", 0, origin)
    frame.findings.verdict = Verdict("allow", "v1")
    failed = Frame("broken", "gate", 0, origin)
    failed.fail("fetch", "http-status", "404")
    sink = KafkaSink(kafka)  # the sink's producer
    await sink.open()
    await sink.write([frame, failed])
    await sink.close()
    async with dead_letters(kafka) as letters:  # a consumer without a group
        assert [letter.image_id for letter in await letters.scan()] == ["broken"]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_wrong_password_opens_no_client_and_is_not_told(
    mechanism: str,
    settings: Callable[..., KafkaSettings],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    kafka = settings(mechanism, sasl_password=WRONG)

    async def publish() -> None:
        async with image_publisher(kafka):
            raise AssertionError("it was let in")

    async def read() -> None:
        async with dead_letters(kafka):
            raise AssertionError("it was let in")

    said = []
    for client in (lambda: ensure_topics(kafka), publish, read, KafkaSink(kafka).open):
        with pytest.raises(SinkError) as caught:
            async with asyncio.timeout(60):
                await client()
        # Trying again would not help: a worker that started so ends, and says why.
        assert isinstance(caught.value, PermanentSinkError), caught.value
        assert "uthentication" in str(caught.value)
        assert "correct the [kafka] settings" in str(caught.value)
        said.append(str(caught.value))
    with pytest.raises(PermanentSinkError, match="uthentication") as ended:
        await consumed(kafka)
    said += [repr(ended.value), caplog.text]
    assert not [text for text in said if "hush" in text or PASSWORD in text]


async def test_a_token_that_has_expired_ends_a_worker_at_its_first_step(
    settings: Callable[..., KafkaSettings], tmp_path: Path
) -> None:
    expired = tmp_path / "expired"
    expired.write_text(an_unsigned_token(sub="hush", exp=1))
    kafka = settings("OAUTHBEARER", sasl_token_file=expired)
    with pytest.raises(PermanentSinkError, match="does not accept the bearer token") as caught:
        await ensure_topics(kafka)
    assert expired.read_text() not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ssl_cafile": None}, "unable to get local issuer|self-signed"),
        ({"security_protocol": "SSL", "bootstrap_servers": "ELSEWHERE"}, "mismatch|not valid for"),
    ],
)
async def test_a_broker_that_cannot_prove_who_it_is_gets_no_password(
    changes: dict[str, Any],
    reason: str,
    broker: SecureKafka,
    settings: Callable[..., KafkaSettings],
) -> None:
    if changes.get("bootstrap_servers"):
        changes = changes | {"bootstrap_servers": broker.elsewhere_address}
    kafka = settings("PLAIN", **changes)
    with pytest.raises(SinkError, match=reason) as caught:
        await ensure_topics(kafka)
    assert isinstance(caught.value, PermanentSinkError)


async def test_a_worker_whose_password_is_wrong_ends_and_says_so(
    settings: Callable[..., KafkaSettings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kafka = settings("SCRAM-SHA-512")
    secret = tmp_path / "password"
    secret.write_text(WRONG)
    monkeypatch.setenv("IMAGEWIRE_KAFKA__SASL_PASSWORD_FILE", str(secret))
    off = "".join(
        f"[operators.{name}]\nenabled = false\n"
        for name in ("objects", "text", "scores", "embedding", "fingerprint")
    )
    file = tmp_path / "imagewire.toml"
    file.write_text(
        f"""
        [kafka]
        bootstrap_servers = "{kafka.bootstrap_servers}"
        security_protocol = "SASL_SSL"
        sasl_mechanism = "SCRAM-SHA-512"
        sasl_username = "{USER}"
        ssl_cafile = "{kafka.ssl_cafile}"
        [http]
        enabled = false
        {off}
        """
    )
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "imagewire", "worker", "--config", str(file)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said = (await worker.communicate())[0].decode()
    assert worker.returncode == 1
    assert "correct the [kafka] settings" in said
    # So does a command.
    assert await asyncio.to_thread(run, ["replay", "--config", str(file)]) == 1
    told = capsys.readouterr().err
    assert "correct the [kafka] settings" in " ".join(told.split())
    assert WRONG not in said + told
