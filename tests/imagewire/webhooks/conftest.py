"""A receiver of webhooks for each test here."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from imagewire.embedded.ports import LOOPBACK

sys.path.append(str(Path(__file__).parent))

from webhook_receiver import Receiver


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
