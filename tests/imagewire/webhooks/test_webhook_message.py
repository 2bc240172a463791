"""What is promised of one webhook: signed, never sent to this machine, over within its time."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from contextlib import suppress
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from webhook_receiver import KEY, Receiver, settings_for, status

from imagewire.embedded.ports import LOOPBACK
from imagewire.webhooks_sending import WebhookSender, signature

pytestmark = pytest.mark.timeout(180)


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
            async with asyncio.timeout(60):
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
