"""A worker as a process: what its signals mean."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

import stamina

from imagewire.settings import Settings
from imagewire.worker import Worker

logger = logging.getLogger(__name__)


async def run_worker(settings: Settings) -> None:
    """Run a worker until SIGTERM or Ctrl-C; a second signal ends the process at once.

    What was acknowledged is safe at any moment, so ending at once loses nothing.
    """
    # Retries go on for as long as a store is away: the sinks' writers say once that they began, and
    # metrics count them. stamina's own hooks would log each and count in the global registry.
    stamina.instrumentation.set_on_retry_hooks([])
    worker = Worker(settings)
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if worker.stopping:
            logger.warning("stopped at once; what was in flight will be delivered again")
            os._exit(128 + number)
        logger.info("stopping; the same signal again stops at once")
        worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    await worker.run()
