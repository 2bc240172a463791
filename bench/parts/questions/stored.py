"""Images in both stores, written by the sinks that workers use: findings made up, pictures real.

Their embeddings have the default embedder's name and length, and lie around as many centres as
there are pictures, so that search has neighbours to find; a worker's own come into the same
collection.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.photos import load_photos
from imagewire.settings import Settings
from models.catalog import load_catalog
from operators.embedding import EmbeddingOptions
from operators.findings import (
    Action,
    Detection,
    Embedding,
    Findings,
    Fingerprint,
    ImageInfo,
    RuleHit,
    Verdict,
)
from operators.frame import Frame, Origin
from sinks.clickhouse.sink import ClickHouseSink
from sinks.qdrant.sink import QdrantSink

SIZE = (320, 240)
FEEDS = ("gate", "market", "uploads", "yard")
_LABELS = ("FACE_FEMALE", "FACE_MALE", "FEET_COVERED", "ARMPITS_EXPOSED", "BELLY_COVERED")
_DIMENSION = 1280
_AT_ONCE = 500
_APART_MS = 6000
"""Ten a minute: ten thousand take most of a day, so that hours have some to find."""


async def store_images(settings: Settings, folder: Path, count: int) -> list[str]:
    """Write `count` images; returns their ids, the newest first.

    Args:
        settings: of the stores, with a user who may write.
        folder: takes the pictures' files.
    """
    model = load_catalog(()).get(EmbeddingOptions().model).full_name
    sinks = (
        ClickHouseSink(settings.clickhouse),
        QdrantSink(settings.qdrant, model, _DIMENSION),
    )
    ids = []
    for sink in sinks:
        await sink.open()
    frames = _frames(folder, count, model)
    while block := await asyncio.to_thread(lambda: list(itertools.islice(frames, _AT_ONCE))):
        ids += [frame.image_id for frame in block]
        for sink in sinks:
            await sink.write(block)
    for sink in sinks:
        await sink.close()
    return ids


def _frames(folder: Path, count: int, model: str) -> Iterator[Frame]:
    photos = load_photos(sizes=(SIZE,))
    different = len(photos.pictures)
    generator = np.random.default_rng(7)
    chance = random.Random(7)
    centres = generator.standard_normal((different, _DIMENSION))
    now = time.time_ns() // 1_000_000
    for number in range(count):
        (path,) = photos.write(folder, [number])
        content = path.read_bytes()
        vector = centres[number % different] + 0.5 * generator.standard_normal(_DIMENSION)
        at = now - number * _APART_MS
        frame = Frame(
            f"stored-{number:06d}",
            FEEDS[number % len(FEEDS)],
            at,
            Origin("images", number % 4, number, at),
            id_given=True,
            captured_at_given=True,
            uri=path.as_uri(),
        )
        action: Action = chance.choices(("allow", "review", "block"), (90, 7, 3))[0]
        frame.findings = Findings(
            image=ImageInfo(*SIZE, "jpeg", len(content)),
            fingerprint=Fingerprint(hashlib.sha256(content).hexdigest()),
            objects=[
                Detection(label, chance.uniform(0.3, 0.95), (20.0, 20.0, 120.0, 160.0))
                for label in chance.sample(_LABELS, chance.randrange(3))
            ],
            scores={"nsfw": chance.betavariate(1, 20)},
            embedding=Embedding(model, (vector / np.linalg.norm(vector)).tolist()),
            models={"objects": "made-up@1", "scores": "made-up@1", "embedding": model},
            verdict=Verdict(
                action, "bench", [] if action == "allow" else [RuleHit(f"to-{action}", action)]
            ),
        )
        yield frame
