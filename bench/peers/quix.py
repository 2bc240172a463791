"""Peer: a Quix Streams application with a batching sink.

Quix takes one record at a time; what works on batches is a sink, which is flushed at each
checkpoint, and offsets are committed after it. Its `BatchingSink` makes a batch for each partition
of the topic, so images of four partitions would reach the operators in quarters; this one gathers
all of them, which suits it better. Fetches a batch's references in a pool of threads; nothing else
overlaps.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from quixstreams import Application
from quixstreams.models import HeadersTuples
from quixstreams.sinks.base import BaseSink

from bench.peers.fetching import path_of
from bench.peers.task import BATCH, SESSION_TIMEOUT, WITHIN, Eyes, Stores, frame_of, read_settings
from imagewire.settings import Settings
from operators.frame import Frame, Stage


class LookingSink(BaseSink):
    """Gathers records until the checkpoint, then fetches, looks and stores."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self._frames: list[Frame] = []
        self._pool = ThreadPoolExecutor(BATCH)
        self._http = httpx.Client(limits=httpx.Limits(max_connections=BATCH))

    def setup(self) -> None:
        self._eyes = Eyes(self._settings)
        # The sinks are asynchronous; Quix is not.
        self._loop = asyncio.new_event_loop()
        self._stores = Stores(self._settings, self._eyes.embedding_model())
        self._loop.run_until_complete(self._stores.__aenter__())

    def add(
        self,
        value: Any,
        key: Any,
        timestamp: int,
        headers: HeadersTuples,
        topic: str,
        partition: int,
        offset: int,
    ) -> None:
        self._frames.append(frame_of(topic, partition, offset, timestamp, value))

    def flush(self) -> None:
        frames, self._frames = self._frames, []
        if not frames:
            return
        list(self._pool.map(self._fetch, frames))
        self._eyes.look(frames)
        self._loop.run_until_complete(self._stores.write(frames))

    def on_paused(self) -> None:
        self._frames.clear()

    def _fetch(self, frame: Frame) -> None:
        uri = frame.uri or ""
        try:
            if uri.startswith("file:"):
                frame.content = path_of(uri).read_bytes()
            else:
                frame.content = self._http.get(uri).raise_for_status().content
        except (OSError, httpx.HTTPError) as error:
            frame.fail(Stage.FETCH, "unreachable", f"{type(error).__name__}: {error}")


def main() -> None:
    settings = read_settings()
    app = Application(
        settings.kafka.bootstrap_servers,
        consumer_group=settings.stream.group,
        auto_offset_reset="earliest",
        # A checkpoint, and so a batch, after so many records or so many seconds.
        commit_every=BATCH,
        commit_interval=WITHIN,
        # A second by default, for which the last records of a burst would wait.
        consumer_poll_timeout=0.05,
        auto_create_topics=False,
        consumer_extra_config={
            "session.timeout.ms": int(SESSION_TIMEOUT * 1000),
            "heartbeat.interval.ms": int(SESSION_TIMEOUT * 250),
        },
        loglevel="WARNING",
    )
    topic = app.topic(settings.kafka.topics.images, value_deserializer="bytes")
    app.dataframe(topic).sink(LookingSink(settings))
    app.run()


if __name__ == "__main__":
    main()
