"""Ten thousand images for the console to stand before, written by the sinks that workers use.

They are made up but for their pictures, and hold what strangers may send: markup in labels, in text
and in ids. The newest come first in everything that the console shows.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from imagewire.settings import Settings
from operators.findings import (
    Action,
    Detection,
    Embedding,
    Findings,
    Fingerprint,
    ImageInfo,
    RuleHit,
    TextLine,
    Verdict,
)
from operators.frame import Frame, Origin
from sinks.clickhouse.reviews import ReviewStore
from sinks.clickhouse.sink import ClickHouseSink
from sinks.qdrant.sink import QdrantSink
from streams.reviews import Decision

COUNT = 10_000
APART_MS = 20_000
"""Between two images: all of them take two days and a third."""
HOSTILE = "<img src=x onerror=document.title='pwned'>"
POLICY = "house-rules-1a2b3c4d5e6f"
_FEEDS = ("gate-3", "uploads", "market", "camera-north-entrance")
_LABELS = ("FACE_FEMALE", "FACE_MALE", "FEET_COVERED", "ARMPITS_EXPOSED", HOSTILE)
_TEXTS = ("SALE 50 %", "M150 SEVILLA", HOSTILE, "")
_RULES: dict[Action, tuple[str, str]] = {
    "review": ("text-in-picture", "A person should look whether it is an advertisement."),
    "block": ("exposed-genitalia", "Exposed genitalia were detected."),
}
_DIMENSION = 32
_MODEL = "made-up@1"
_TOPIC = "images-of-the-console"
_AT_ONCE = 1000
_PHOTOS = (
    ("ultralytics", "assets/bus.jpg"),
    ("ultralytics", "assets/zidane.jpg"),
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/rocket.jpg"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)


def image_id(number: int) -> str:
    """The id of an image; the first has one that needs escaping wherever it stands."""
    return f"odd/id é?&%2F'\\#{HOSTILE}" if number == 0 else f"image-{number:05d}"


async def store_ten_thousand(settings: Settings, folder: Path, now_ms: int) -> None:
    """Write the images into the stores, and what people decided of some.

    Args:
        folder: takes their files; the API must be allowed to read it.
        now_ms: when the newest came, in milliseconds since the epoch.
    """
    rows = ClickHouseSink(settings.clickhouse)
    points = QdrantSink(settings.qdrant, _MODEL, _DIMENSION)
    frames = list(_frames(folder, now_ms))
    for sink in (rows, points):
        await sink.open()
        for start in range(0, COUNT, _AT_ONCE):
            await sink.write(frames[start : start + _AT_ONCE])
        await sink.close()
    # Old enough to lie behind every first page.
    decided = frames[-400::2]
    store = ReviewStore(settings.clickhouse)
    images = await store.images([frame.image_id for frame in decided])
    decisions = [
        Decision(
            frame.image_id,
            "block" if number % 3 == 0 else "allow",
            ("ann", "bob")[number % 2],
            now_ms - 1000 * number,
            f"decision-{number}",
            reason=HOSTILE if number == 0 else "",
        )
        for number, frame in enumerate(decided)
    ]
    await store.store(
        [
            (each, images[each.image_id], ("images.reviews", 0, number, each.decided_at_ms))
            for number, each in enumerate(decisions)
        ]
    )
    await store.close()


def _frames(folder: Path, now_ms: int) -> Iterator[Frame]:
    random = np.random.default_rng(7)
    pictures = list(_pictures())
    vectors = random.normal(size=(COUNT, _DIMENSION))
    # Every fiftieth is nearly the one before it.
    vectors[49::50] = vectors[48::50] + random.normal(scale=0.02, size=(COUNT // 50, _DIMENSION))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for number in range(COUNT):
        content, size = pictures[number % len(pictures)]
        # What stands behind a JPEG's end changes its bytes and nothing that is seen; every
        # hundredth image has the bytes of another.
        content += (number - (1 if number % 100 == 99 else 0)).to_bytes(4, "big")
        path = folder / f"{number}.jpg"
        path.write_bytes(content)
        at = now_ms - number * APART_MS
        frame = Frame(
            image_id(number),
            _FEEDS[number % len(_FEEDS)],
            at,
            Origin(_TOPIC, number % 4, number, at),
            id_given=True,
            captured_at_given=True,
            uri=path.as_uri(),
            metadata={"shop": number % 9, HOSTILE: HOSTILE},
        )
        frame.findings = _findings(number, content, size, vectors[number].tolist())
        yield frame


def _findings(number: int, content: bytes, size: tuple[int, int], vector: list[float]) -> Findings:
    width, height = size
    action: Action = "block" if number % 17 == 5 else "review" if number % 5 == 2 else "allow"
    text = _TEXTS[number % len(_TEXTS)]
    score = (number * 7919 % 1000) / 1000
    return Findings(
        image=ImageInfo(width, height, "jpeg", len(content)),
        fingerprint=Fingerprint(hashlib.sha256(content).hexdigest()),
        objects=[
            Detection(
                label, 0.3 + score / 2, (width * 0.1, height * 0.1, width * 0.6, height * 0.7)
            )
            for label in _LABELS[number % 4 : number % 4 + number % 3]
        ],
        texts=[
            TextLine(text, 0.9, ((5.0, 5.0), (90.0, 5.0), (90.0, 20.0), (5.0, 20.0)))
            for _ in range(bool(text))
        ],
        embedding=Embedding(_MODEL, vector),
        scores={"nsfw": score**4},
        models={"objects": "nudenet-320n@3.4.2", "scores": "open-nsfw@1.0.0", "embedding": _MODEL},
        verdict=Verdict(
            action,
            POLICY,
            [
                *(
                    [RuleHit(_RULES[action][0], action, _RULES[action][1])]
                    if action in _RULES
                    else []
                ),
                *(
                    [RuleHit("advertisement", "block", HOSTILE, shadow=True)]
                    if number % 40 == 0
                    else []
                ),
            ],
            audit=["(no rule)"] if action == "allow" and number % 50 == 0 else [],
        ),
    )


def _pictures() -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Small JPEGs of real photos."""
    for package, relative in _PHOTOS:
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.submodule_search_locations
        with Image.open(Path(next(iter(spec.submodule_search_locations))) / relative) as photo:
            small = photo.convert("RGB")
        small.thumbnail((240, 240))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=60)
        yield buffer.getvalue(), small.size
