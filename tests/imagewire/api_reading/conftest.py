"""The API over real stores that hold analysed photos, a wall of plain rows and a few traps.

Making it takes some seconds, so all tests of reading share it; none of them writes.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import io
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from front_process import ClickHouseServer, QdrantServer
from PIL import Image
from served_api import served
from shared_broker import SharedBroker

from imagewire.api.services import Services
from imagewire.settings import Settings
from models.catalog import load_catalog
from models.device import choose_device
from operators.decode import make_decoder
from operators.decode_limits import DecodeLimits
from operators.embedding import EmbeddingOperator
from operators.findings import RuleHit, TextLine, Verdict
from operators.fingerprint import FingerprintOperator
from operators.frame import Frame, Origin
from operators.objects import ObjectsOperator
from operators.scores import ScoresOperator
from sinks.clickhouse.reviews import ReviewStore
from sinks.clickhouse.sink import ClickHouseSink
from sinks.qdrant.sink import QdrantSink
from streams.reviews import Decision

T0 = 1_790_000_000_000
"""The event time of the first photo; the others follow a second apart."""
KEYS = {
    name: f"{name}-{secrets.token_urlsafe(18)}" for name in ("reader", "reviewer", "gate", "chief")
}
ODD = "odd/id é?&%2F'\\#+"
WALL = 130


@dataclass
class Library:
    """The running API, and what its stores hold."""

    url: str
    settings: Settings
    services: Services
    photos: Path
    frames: dict[str, Frame] = field(default_factory=dict)

    def get(self, path: str, key: str = "reader", **arguments: Any) -> httpx.Response:
        return self.ask("GET", path, key, **arguments)

    def post(self, path: str, key: str = "reader", **arguments: Any) -> httpx.Response:
        return self.ask("POST", path, key, **arguments)

    def ask(self, method: str, path: str, key: str, **arguments: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {KEYS[key]}", **arguments.pop("headers", {})}
        with httpx.Client(base_url=self.url, trust_env=False, timeout=300) as client:
            return client.request(method, path, headers=headers, **arguments)


def _asset(package: str, relative: str) -> bytes:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return (Path(next(iter(spec.submodule_search_locations))) / relative).read_bytes()


def _edited(content: bytes, side: int, quality: int) -> bytes:
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _pictures() -> dict[str, tuple[str, bytes]]:
    """Image id to feed and bytes."""
    bus = _asset("ultralytics", "assets/bus.jpg")
    dot = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 40, 40)).save(dot, "PNG")
    return {
        "bus": ("gate", bus),
        "bus-copy": ("gate", bus),
        "bus-small": ("gate", _edited(bus, 500, 60)),
        "zidane": ("gate", _asset("ultralytics", "assets/zidane.jpg")),
        "inline": ("gate", _asset("skimage", "data/astronaut.png")),
        "blocked": ("gate", _asset("skimage", "data/chelsea.png")),
        "changed": ("gate", _edited(bus, 300, 70)),
        "gone": ("gate", _edited(bus, 310, 70)),
        ODD: ("gate", _asset("skimage", "data/coffee.png")),
        "dot": ("gate", dot.getvalue()),
        "hopper": ("secret", _asset("matplotlib", "mpl-data/sample_data/grace_hopper.jpg")),
    }


def _analysed(photos: Path, topic: str) -> dict[str, Frame]:
    device, catalog = choose_device("cpu"), load_catalog()
    decoder = make_decoder(device, DecodeLimits(), 1, "thread")
    kinds = (FingerprintOperator, ObjectsOperator, EmbeddingOperator, ScoresOperator)
    operators = [kind({}, device, catalog) for kind in kinds]
    frames = {}
    for number, (image_id, (feed, content)) in enumerate(_pictures().items()):
        at = T0 + 1000 * number
        path = photos / f"{number}.bin"
        path.write_bytes(content)
        uri: str | None = path.as_uri()
        if image_id == "inline":
            uri = None
        elif image_id == "dot":
            uri = "data:image/png;base64," + base64.b64encode(content).decode()
        frames[image_id] = Frame(
            image_id,
            feed,
            at,
            Origin(topic, 0, 1000 + number, at),
            id_given=True,
            captured_at_given=True,
            uri=uri,
            content=content,
            metadata={"camera": "north", "floor": number},
        )
    decoder.decode(list(frames.values()))
    for operator in operators:
        operator.setup()
        operator.process(list(frames.values()))
        operator.close()
    decoder.close()
    for image_id, frame in frames.items():
        assert frame.failure is None, frame.failure
        hits = [RuleHit("seen", "review", "because", shadow=True)]
        action = "allow"
        if image_id == "blocked":
            action, hits = "block", [RuleHit("no-cats", "block", "a cat"), *hits]
        elif image_id == "bus-small":
            action, hits = "review", [RuleHit("unsure", "review", "look"), *hits]
        frame.findings.verdict = Verdict(action, "policy-1", hits)  # type: ignore[arg-type]
        frame.pixels = None
    quad = ((10.0, 10.0), (200.0, 10.0), (200.0, 40.0), (10.0, 40.0))
    frames["bus"].findings.texts = [
        TextLine("Calle de Álcalá", 0.97, quad, "calle de alcala"),
        TextLine("mail [email]", 0.9, quad),
    ]
    (photos / "6.bin").write_bytes(_pictures()["zidane"][1])  # `changed` is another picture now
    (photos / "7.bin").unlink()  # and `gone` is gone
    return frames


def _wall(topic: str) -> list[Frame]:
    """Rows without pictures: three at each time, over a hundred days."""
    frames = []
    for number in range(WALL):
        at = T0 - 1 - (number // 3) * 2 * 86_400_000
        frame = Frame(f"wall-{number % 3}-{number:04d}", "wall", at, Origin(topic, 1, number, at))
        frame.captured_at_given = True
        action = "review" if number % 10 == 0 else "allow"
        frame.findings.verdict = Verdict(action, "policy-1")  # type: ignore[arg-type]
        frames.append(frame)
    return frames


def _failed(topic: str) -> list[Frame]:
    broken = Frame("broken", "gate", T0, Origin(topic, 2, 1, T0), uri="data:image/png,x")
    broken.fail("decode", "not-an-image", "this is no picture")
    hidden = Frame("hidden", "secret", T0, Origin(topic, 2, 2, T0), uri="https://example.org/x")
    hidden.fail("fetch", "not-found", "it is not there")
    return [broken, hidden]


async def _publish(settings: Settings, frame: Frame) -> None:
    """Put an inline image on its topic, and note where it is."""
    producer = AIOKafkaProducer(**settings.kafka.producer_options())
    await producer.start()
    try:
        headers = [("image-id", frame.image_id.encode()), ("feed", frame.feed.encode())]
        stored = await producer.send_and_wait(
            settings.kafka.topics.images, _pictures()[frame.image_id][1], headers=headers
        )
    finally:
        await producer.stop()
    frame.origin = Origin(stored.topic, stored.partition, stored.offset, frame.event_time_ms)


async def _fill(settings: Settings, frames: dict[str, Frame]) -> None:
    topic = settings.kafka.topics.images
    await _publish(settings, frames["inline"])
    rows = ClickHouseSink(settings.clickhouse)
    embedding = frames["bus"].findings.embedding
    assert embedding is not None
    points = QdrantSink(settings.qdrant, embedding.model, len(embedding.vector))
    for sink in (rows, points):
        await sink.open()
        await sink.write(list(frames.values()))
    await rows.write(_wall(topic))
    # Written again, as after a restart: nothing may come twice.
    await rows.write(_wall(topic)[:20])
    await rows.write(_failed(topic))
    store = ReviewStore(settings.clickhouse)
    images = await store.images(["zidane", "bus"])
    decisions = [
        Decision("zidane", "block", "ann", T0 + 50_000, "d-1", reason="a complaint"),
        # Of the two buses with the same bytes, one was decided: it holds for both.
        Decision(
            "bus",
            "block",
            "ben",
            T0 + 60_000,
            "d-2",
            images["bus"].content_id,
            "wrong",
            feed="gate",
        ),
        Decision(
            "bus", "withdraw", "ben", T0 + 61_000, "d-3", images["bus"].content_id, feed="gate"
        ),
        # Of an image of another feed with the same id.
        Decision("bus-small", "withdraw", "ann", T0 + 62_000, "d-4", feed="secret"),
    ]
    await store.store(
        [
            (each, images.get(each.image_id), ("images.reviews", 0, number, each.decided_at_ms))
            for number, each in enumerate(decisions)
        ]
    )
    await store.close()
    await rows.close()
    await points.close()


def _settings(
    clickhouse: ClickHouseServer, qdrant: QdrantServer, broker: SharedBroker, photos: Path
) -> Settings:
    token = secrets.token_hex(5)
    return Settings(
        kafka={
            "bootstrap_servers": broker.address,
            "topics": {"images": f"images-{token}", "bans": f"bans-{token}"},
        },
        clickhouse={
            "host": clickhouse.host,
            "port": clickhouse.port,
            "username": "writer",
            "password": clickhouse.writer_password,
            "database": f"api_{token}",
        },
        qdrant={
            "host": qdrant.host,
            "grpc_port": qdrant.grpc_port,
            "api_key": qdrant.api_key,
            "collection": f"api-{token}",
        },
        fetch={"file_roots": [str(photos)]},
        api={
            "keys": [
                {"name": "reader", "key": KEYS["reader"], "scopes": ["read"]},
                {"name": "reviewer", "key": KEYS["reviewer"], "scopes": ["read", "review"]},
                {"name": "gate", "key": KEYS["gate"], "scopes": ["read"], "feeds": ["gate"]},
                {"name": "chief", "key": KEYS["chief"], "scopes": ["admin"]},
            ]
        },
    )  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def library(
    clickhouse_front: ClickHouseServer,
    qdrant_front: QdrantServer,
    tansu_broker: SharedBroker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Library]:
    photos = tmp_path_factory.mktemp("library")
    settings = _settings(clickhouse_front, qdrant_front, tansu_broker, photos)
    frames = _analysed(photos, settings.kafka.topics.images)
    asyncio.run(_fill(settings, frames))
    analyst = settings.clickhouse.model_dump() | {
        "username": "analyst",
        "password": clickhouse_front.analyst_password,
    }
    settings = settings.model_copy(update={"clickhouse": type(settings.clickhouse)(**analyst)})
    services = Services(settings)
    with served(services) as address:
        yield Library(address, settings, services, photos, frames)
