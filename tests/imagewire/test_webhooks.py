"""What is promised of webhooks: signed, tried again, given up at last, never to this machine."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from pydantic import ValidationError
from shared_broker import SharedBroker

from imagewire.dead_letters import LetterFilter
from imagewire.embedded.ports import LOOPBACK
from imagewire.settings import ConfigurationError, Settings, load_settings
from imagewire.webhooks import Notifier
from imagewire.webhooks_again import tell_again
from imagewire.webhooks_sending import WebhookSender, signature
from imagewire.webhooks_settings import WebhookSecretError, WebhookSettings
from sinks.kafka import ensure_topics
from sinks.kafka.settings import KafkaSettings, TopicNames
from streams.metrics import Metrics
from streams.tombstones import Covers, Tombstones, nothing_erased, tombstone_record

pytestmark = pytest.mark.timeout(180)

KEY = b"k" * 32
SECRET = "whsec_" + base64.b64encode(KEY).decode()
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Receiver:
    """A real HTTP server that answers as it is told and keeps what it got."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answer: Answer = self.ok
        self.url = ""

    async def ok(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="thanks")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.got.append((headers, await request.read()))
        return await self.answer(request)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.got) < count:  # noqa: ASYNC110 - the server has no event for this
                await asyncio.sleep(0.02)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, 0).start()
    made.url = f"http://{LOOPBACK}:{runner.addresses[0][1]}/hook?token=geheim"
    yield made
    await runner.cleanup()


def settings_for(receiver: Receiver, **changes: Any) -> WebhookSettings:
    return WebhookSettings.model_validate(
        {
            "name": "trust",
            "url": receiver.url,
            "secret": SECRET,
            "allow_http": True,
            "allow_networks": ["127.0.0.0/8"],
            "timeout": 2,
        }
        | changes
    )


def status(code: int, **headers: str) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, headers=headers)

    return answer


# one message


async def test_a_message_is_signed_as_the_standard_says(receiver: Receiver) -> None:
    async with WebhookSender(settings_for(receiver)) as sender:
        attempt = await sender.send("msg_1", b'{"a":1}')
    assert attempt.outcome == "delivered"
    [(headers, body)] = receiver.got
    assert body == b'{"a":1}'
    assert headers["webhook-id"] == "msg_1"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    signed = b"msg_1." + headers["webhook-timestamp"].encode() + b"." + body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


def test_the_signature_is_that_of_the_specifications_own_example() -> None:
    # The example of the reference libraries (standard-webhooks, svix).
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("code", [301, 302, 307, 400, 401, 404, 429, 500, 503])
async def test_whatever_is_no_success_is_tried_again_later(receiver: Receiver, code: int) -> None:
    receiver.answer = status(code, Location=receiver.url, **{"Retry-After": "7"})
    async with WebhookSender(settings_for(receiver)) as sender:
        attempt = await sender.send("m", b"{}")
    assert attempt.outcome == "again"
    assert len(receiver.got) == 1  # redirects are not followed
    assert attempt.retry_after == (7.0 if code >= 400 else None)
    assert "geheim" not in attempt.detail


async def test_a_receiver_that_is_gone_is_not_asked_again(receiver: Receiver) -> None:
    receiver.answer = status(410)
    async with WebhookSender(settings_for(receiver)) as sender:
        assert (await sender.send("m", b"{}")).outcome == "gone"


async def test_one_that_hangs_drips_or_floods_costs_no_more_than_its_time(
    receiver: Receiver,
) -> None:
    async def hang(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "20"})
        await response.prepare(request)
        for _ in range(20):
            await response.write(b"x")
            await asyncio.sleep(1)
        return response

    async def flood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(b"x" * 65536)
        return response

    async with WebhookSender(settings_for(receiver, timeout=0.5)) as sender:
        for answer, outcome in ((hang, "again"), (drip, None), (flood, "delivered")):
            receiver.answer = answer
            async with asyncio.timeout(20):
                attempt = await sender.send("m", b"{}")
            assert outcome in (None, attempt.outcome)


async def test_a_private_address_is_refused_unless_it_is_allowed(receiver: Receiver) -> None:
    for url in (receiver.url, receiver.url.replace(LOOPBACK, "2130706433")):
        closed = settings_for(receiver, url=url, allow_networks=[])
        async with WebhookSender(closed) as sender:
            attempt = await sender.send("m", b"{}")
        assert attempt.outcome == "again"
        assert "no public address" in attempt.detail
    assert receiver.got == []


class Rebinding(AbstractResolver):
    """Answers with a public address first and with this machine's from then on."""

    def __init__(self) -> None:
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        self.asked += 1
        address = "198.51.100.1" if self.asked == 1 else LOOPBACK
        return [ResolveResult(hostname=host, host=address, port=port, family=2, proto=0, flags=0)]

    async def close(self) -> None:
        pass


async def test_a_name_that_leads_home_is_refused_whenever_it_does(receiver: Receiver) -> None:
    url = receiver.url.replace(LOOPBACK, "hooks.example.org")
    resolver = Rebinding()
    resolver.asked = 1
    sender = WebhookSender(settings_for(receiver, url=url, allow_networks=[]), resolver)
    async with sender:
        attempt = await sender.send("m", b"{}")
    assert "no public address" in attempt.detail
    assert receiver.got == []


# settings


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"url": "http://example.org/"}, "unencrypted"),
        ({"url": "ftp://example.org/"}, "begins with https"),
        ({"url": "https://user:pass@example.org/"}, "no user name"),
        ({"url": "https://"}, "begins with https"),
        ({"secret": None}, "exactly one of"),
        ({"secret_variable": "X"}, "exactly one of"),
        ({"actions": []}, "at least 1"),
        ({"name": "a b"}, "pattern"),
    ],
)
def test_a_webhook_that_cannot_work_is_refused(changes: dict[str, Any], complaint: str) -> None:
    fields = {"name": "a", "url": "https://example.org/", "secret": SECRET}
    with pytest.raises(ValidationError, match=complaint) as caught:
        WebhookSettings.model_validate(fields | changes)
    assert SECRET not in str(caught.value)


def test_a_secret_comes_from_a_file_or_a_variable_and_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = {"name": "a", "url": "https://example.org/?token=geheim"}
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    made = WebhookSettings.model_validate(base | {"secret_file": file})
    assert made.key() == KEY
    monkeypatch.setenv("HOOK", SECRET)
    assert WebhookSettings.model_validate(base | {"secret_variable": "HOOK"}).key() == KEY
    given = WebhookSettings.model_validate(base | {"secret": SECRET})
    assert SECRET not in repr(given)
    assert "geheim" not in repr(given)
    for wrong in ("short", "whsec_!!!", "whsec_aGk="):
        with pytest.raises(WebhookSecretError) as caught:
            WebhookSettings.model_validate(base | {"secret": wrong}).key()
        assert wrong not in str(caught.value)
    monkeypatch.delenv("HOOK")
    with pytest.raises(WebhookSecretError, match="HOOK is not set"):
        WebhookSettings.model_validate(base | {"secret_variable": "HOOK"}).key()


def test_a_webhook_of_the_settings_file_is_explained_when_it_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "imagewire.toml"
    file.write_text(f'[[webhooks]]\nname = "a"\nurl = "http://example.org/"\nsecret = "{SECRET}"\n')
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file)
    assert "webhooks" in str(caught.value)
    assert SECRET not in str(caught.value)


# the stream of verdicts


class Stream:
    """A topic of verdicts, and what became of those that were given up."""

    def __init__(self, kafka: KafkaSettings, group: str) -> None:
        self.kafka = kafka
        self.group = group

    async def publish(self, *verdicts: dict[str, Any]) -> None:
        producer = AIOKafkaProducer(**self.kafka.producer_options())
        await producer.start()
        for verdict in verdicts:
            await producer.send_and_wait(
                self.kafka.topics.verdicts,
                json.dumps({"feed": "gate", "action": "block"} | verdict).encode(),
                key=verdict["image_id"].encode(),
            )
        await producer.stop()

    async def letters(self, count: int) -> list[Any]:
        consumer = AIOKafkaConsumer(
            self.kafka.topics.failed, auto_offset_reset="earliest", **self.kafka.client_options()
        )
        await consumer.start()
        found: list[Any] = []
        async with asyncio.timeout(60):
            while len(found) < count:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += records
        await consumer.stop()
        return found

    @asynccontextmanager
    async def notifying(
        self, settings: WebhookSettings, forgotten: Covers = nothing_erased
    ) -> AsyncIterator[Notifier]:
        notifier = Notifier(
            settings, self.kafka, self.group, Metrics(), forgotten=forgotten, first_pause=0.05
        )
        task = asyncio.create_task(notifier.run())
        try:
            async with asyncio.timeout(60):
                while not notifier.began:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            yield notifier
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
async def stream(apache_kafka: SharedBroker, unique: Callable[[str], str]) -> Stream:
    names = {topic: unique(topic) for topic in TopicNames.model_fields}
    kafka = KafkaSettings(
        bootstrap_servers=apache_kafka.address, topics=TopicNames(**names), partitions=1
    )
    await ensure_topics(kafka)
    return Stream(kafka, unique("group"))


async def test_chosen_verdicts_are_told_once_and_a_restart_goes_on(
    receiver: Receiver, stream: Stream
) -> None:
    settings = settings_for(receiver, actions=["block"], feeds=["gate"])
    await stream.publish({"image_id": "before"})
    async with stream.notifying(settings):
        await stream.publish(
            {"image_id": "allowed", "action": "allow"},
            {"image_id": "other", "feed": "door"},
            {"image_id": "one"},
        )
        await receiver.until(1)
    await stream.publish({"image_id": "two"})  # while nobody looks
    async with stream.notifying(settings):
        await receiver.until(2)
        await asyncio.sleep(0.5)
    told = [json.loads(body) for _, body in receiver.got]
    assert [each["data"]["image_id"] for each in told] == ["one", "two"]
    assert {each["type"] for each in told} == {"image.verdict"}
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 2


async def test_one_message_that_fails_holds_up_no_other_and_keeps_its_id(
    receiver: Receiver, stream: Stream
) -> None:
    async def not_the_first(request: web.Request) -> web.StreamResponse:
        tries = sum(b'"one"' in body for _, body in receiver.got)
        bad = b'"one"' in receiver.got[-1][1] and tries < 4
        return web.Response(status=500 if bad else 200)

    receiver.answer = not_the_first
    async with stream.notifying(settings_for(receiver)):
        await stream.publish({"image_id": "one"}, {"image_id": "two"})
        await receiver.until(5)
    ids = [headers["webhook-id"] for headers, body in receiver.got if b'"one"' in body]
    assert len(ids) == 4
    assert len(set(ids)) == 1


async def test_nobody_is_told_of_what_was_erased_meanwhile(
    receiver: Receiver, stream: Stream
) -> None:
    receiver.answer = status(500)
    erased = Tombstones()
    async with stream.notifying(settings_for(receiver), erased.covers):
        await stream.publish(
            {"image_id": "one", "feed": "gate"},
            {"image_id": "two", "feed": "door", "content_id": "ab" * 32},
            {"image_id": "three", "feed": "door"},
        )
        await receiver.until(6)
        now = time.time_ns() // 1_000_000
        erased.apply(*tombstone_record("feed", "gate", now))
        erased.apply(*tombstone_record("content", "ab" * 32, now))
        receiver.answer = receiver.ok
        del receiver.got[:]
        await receiver.until(1)
        await asyncio.sleep(0.5)
    assert {json.loads(body)["data"]["image_id"] for _, body in receiver.got} == {"three"}


async def test_a_message_that_is_too_old_becomes_a_dead_letter_without_a_secret(
    receiver: Receiver, stream: Stream
) -> None:
    receiver.answer = status(500)
    async with stream.notifying(settings_for(receiver, max_age=0.3)):
        await stream.publish({"image_id": "one"})
        [letter] = await stream.letters(1)
        receiver.answer = receiver.ok
        await stream.publish({"image_id": "two"})
        async with asyncio.timeout(30):
            while b'"two"' not in receiver.got[-1][1]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    headers = {name: value.decode() for name, value in letter.headers}
    assert headers["imagewire-stage"] == "webhook"
    assert headers["imagewire-reason"] == "gave-up"
    assert headers["imagewire-image-id"] == "one"
    assert "'trust'" in headers["imagewire-detail"]
    assert "geheim" not in str(headers)
    assert json.loads(letter.value)["image_id"] == "one"

    first, *_ = receiver.got
    del receiver.got[:]
    settings = Settings(kafka=stream.kafka, webhooks=(settings_for(receiver),))
    assert [each.outcome for each in await tell_again(settings, LetterFilter(), dry_run=True)] == [
        None
    ]
    assert receiver.got == []
    assert await tell_again(settings, LetterFilter(), ["another"]) == []
    [told] = await tell_again(settings, LetterFilter())
    assert (told.webhook, told.outcome) == ("trust", "delivered")
    [again] = receiver.got
    assert (again[0]["webhook-id"], again[1]) == (first[0]["webhook-id"], first[1])
    producer = AIOKafkaProducer(**stream.kafka.producer_options())
    await producer.start()
    key, value = tombstone_record("image", "one", 0)
    await producer.send_and_wait(stream.kafka.topics.forgotten, value, key=key)
    await producer.stop()
    assert [each.outcome for each in await tell_again(settings, LetterFilter())] == ["forgotten"]
    assert len(receiver.got) == 1
