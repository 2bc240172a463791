"""What is promised of similarity search: on the embedded engine, behind the server's API."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import torch
from front_process import QdrantServer
from PIL import Image
from pydantic import ValidationError
from qdrant_client import models
from skimage import data

from models.catalog import load_catalog
from models.device import choose_device
from models.embedders import Embedder, load_embedder
from operators.findings import Detection, Embedding, Fingerprint, TextLine, Verdict
from operators.frame import Frame, Origin
from sinks.qdrant.connection import connect
from sinks.qdrant.reader import ImageNotFoundError, VectorReader
from sinks.qdrant.settings import QdrantSettings
from sinks.qdrant.sink import QdrantSink
from sinks.sink import PermanentSinkError, TransientSinkError

MODEL = "tiny@1.0"


@pytest.fixture
def settings(qdrant_front: QdrantServer, unique: Callable[[str], str]) -> QdrantSettings:
    return QdrantSettings(
        host=qdrant_front.host,
        grpc_port=qdrant_front.grpc_port,
        api_key=qdrant_front.api_key,
        collection=unique("images"),
    )


def a_frame(image_id: str, vector: Sequence[float], model: str = MODEL, **changes: Any) -> Frame:
    frame = Frame(
        image_id=image_id,
        feed=changes.get("feed", "gate"),
        event_time_ms=changes.get("event_time_ms", 1_767_225_600_250),
        origin=Origin("images", 0, 0, 0),
        uri=changes.get("uri"),
    )
    frame.findings.embedding = Embedding(model, list(vector))
    frame.findings.fingerprint = Fingerprint("cd" * 32)
    frame.findings.verdict = Verdict(changes.get("verdict", "allow"), "v1")
    frame.findings.objects = [
        Detection(label, 0.9, (0, 0, 1, 1)) for label in changes.get("labels", ())
    ]
    return frame


def some_vectors(count: int, dimension: int = 4) -> list[list[float]]:
    vectors = np.random.default_rng(7).normal(size=(count, dimension))
    unit: list[list[float]] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).tolist()
    return unit


async def stored(settings: QdrantSettings, frames: Sequence[Frame], dimension: int = 4) -> None:
    model = next(frame.findings.embedding.model for frame in frames if frame.findings.embedding)
    sink = QdrantSink(settings, model, dimension)
    await sink.open()
    await sink.write(frames)
    await sink.close()


async def found(settings: QdrantSettings, **query: Any) -> list[str]:
    async with VectorReader(settings) as reader:
        return [similar.image_id for similar in await reader.search(**query)]


async def test_a_replayed_batch_leaves_the_same_points(settings: QdrantSettings) -> None:
    frames = [a_frame(f"photo-{n}", vector) for n, vector in enumerate(some_vectors(20))]
    await stored(settings, frames)
    await stored(settings, frames[5:15])
    async with VectorReader(settings) as reader:
        assert await reader.count() == 20


async def test_a_replay_overwrites_what_was_known(settings: QdrantSettings) -> None:
    [vector] = some_vectors(1)
    await stored(settings, [a_frame("a", vector, verdict="review")])
    await stored(settings, [a_frame("a", vector, verdict="block")])
    async with VectorReader(settings) as reader:
        [similar] = await reader.search(vector=vector)
    assert similar.payload["verdict"] == "block"


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    torch.set_num_threads(1)
    card = load_catalog().get("efficientnet-lite0")
    return load_embedder(card, choose_device("cpu", "fp32"))


def cropped_and_recompressed(photo: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(photo)
    width, height = picture.size
    cut = picture.crop((width // 12, height // 12, width - width // 20, height - height // 20))
    buffer = io.BytesIO()
    cut.save(buffer, "JPEG", quality=35)
    return np.asarray(Image.open(buffer).convert("RGB"))


async def test_a_cropped_and_recompressed_copy_finds_its_original_first(
    settings: QdrantSettings, embedder: Embedder
) -> None:
    photos = {name: getattr(data, name)() for name in ("astronaut", "coffee", "chelsea", "rocket")}
    pictures = [*photos.values(), cropped_and_recompressed(photos["coffee"])]
    batch = embedder.batch([torch.from_numpy(picture.copy()) for picture in pictures])
    *originals, copy = embedder.embed(batch).tolist()
    model = embedder.card.full_name
    frames = [a_frame(name, v, model) for name, v in zip(photos, originals, strict=True)]
    await stored(settings, frames, embedder.dimension)

    async with VectorReader(settings) as reader:
        first, second, *_ = await reader.search(vector=copy)
    assert first.image_id == "coffee"
    assert first.score > 0.8 > second.score


async def test_an_image_finds_others_like_it_but_not_itself(settings: QdrantSettings) -> None:
    frames = [
        a_frame("a", [1.0, 0.0, 0.0, 0.0]),
        a_frame("b", [0.9, 0.1, 0.0, 0.0]),
        a_frame("c", [0.0, 0.0, 1.0, 0.0]),
    ]
    await stored(settings, frames)
    assert await found(settings, image_id="a") == ["b", "c"]
    assert await found(settings, image_id="a", limit=1) == ["b"]


async def test_an_id_that_is_a_uuid_is_found_however_it_is_spelled(
    settings: QdrantSettings,
) -> None:
    given = "6F9619FF-8B86-D011-B42D-00CF4FC964FF"
    await stored(settings, [a_frame(given, [1.0, 0, 0, 0]), a_frame("other", [0.9, 0.1, 0, 0])])
    assert await found(settings, image_id=given.lower()) == ["other"]
    assert given in await found(settings, vector=[1.0, 0, 0, 0])


async def test_an_unknown_image_says_so(settings: QdrantSettings) -> None:
    await stored(settings, [a_frame("a", [1.0, 0, 0, 0])])
    with pytest.raises(ImageNotFoundError, match="nowhere"):
        await found(settings, image_id="nowhere")
    async with VectorReader(settings) as reader:
        assert (await reader.feed_of("a"), await reader.feed_of("nowhere")) == ("gate", None)


async def test_searching_before_anything_was_stored_says_so(settings: QdrantSettings) -> None:
    with pytest.raises(PermanentSinkError, match="no image has been stored yet"):
        await found(settings, image_id="a")


async def test_filters_narrow_the_search(settings: QdrantSettings) -> None:
    day = 86_400_000
    frames = [
        a_frame("old", [1, 0, 0, 0], event_time_ms=1 * day, labels=["face", "hand"]),
        a_frame("new", [0.9, 0.1, 0, 0], event_time_ms=3 * day, verdict="block", labels=["face"]),
        a_frame("far", [0, 1, 0, 0], event_time_ms=3 * day, feed="yard", verdict="review"),
    ]
    await stored(settings, frames)
    near: dict[str, Any] = {"vector": [1.0, 0, 0, 0]}
    second_day = datetime(1970, 1, 3, tzinfo=UTC)
    assert await found(settings, **near) == ["old", "new", "far"]
    assert await found(settings, **near, feed="yard") == ["far"]
    assert await found(settings, **near, verdict="block") == ["new"]
    assert await found(settings, **near, labels=["face"]) == ["old", "new"]
    assert await found(settings, **near, labels=["face", "hand"]) == ["old"]
    assert await found(settings, **near, since=second_day) == ["new", "far"]
    assert await found(settings, **near, until=second_day) == ["old"]
    assert await found(settings, image_id="old", feed="yard") == ["far"]
    async with VectorReader(settings) as reader:
        assert await reader.count(verdict="review", feed="yard") == 1
        assert await reader.count(labels=["face"], since=second_day) == 1


async def test_what_was_found_can_be_shown(settings: QdrantSettings) -> None:
    frame = a_frame("a", [1.0, 0, 0, 0], uri="https://example.org/a.jpg", labels=["b", "a", "b"])
    quad = ((0, 0), (1, 0), (1, 1), (0, 1))
    frame.findings.texts = [TextLine("NO", 0.9, quad), TextLine("ENTRY", 0.9, quad)]
    inline = a_frame("b", [0.0, 1, 0, 0], uri="data:image/png;base64,AAAA")
    await stored(settings, [frame, inline])
    async with VectorReader(settings) as reader:
        shown, other = await reader.search(vector=[1.0, 0, 0, 0])
    assert shown.payload.pop("stored_at") > "2026-01-01"
    assert shown.payload == {
        "content_id": "cd" * 32,
        "feed": "gate",
        "event_time": "2026-01-01T00:00:00.250Z",
        "verdict": "allow",
        "labels": ["a", "b"],
        "uri": "https://example.org/a.jpg",
        "text": "NO\nENTRY",
    }
    assert other.payload["uri"] is None


async def test_frames_that_failed_or_have_no_embedding_are_passed_over(
    settings: QdrantSettings,
) -> None:
    failed, bare = a_frame("failed", [1.0, 0, 0, 0]), a_frame("bare", [1.0, 0, 0, 0])
    failed.fail("decode", "not-an-image", "no picture")
    bare.findings.embedding = None
    await stored(settings, [failed, a_frame("good", [1.0, 0, 0, 0]), bare])
    assert await found(settings, vector=[1.0, 0, 0, 0]) == ["good"]


async def test_a_new_embedder_gets_its_own_collection_and_the_alias(
    settings: QdrantSettings,
) -> None:
    await stored(settings, [a_frame("a", [1.0, 0, 0, 0], "tiny@1.0")])
    await stored(settings, [a_frame("b", [1.0, 0, 0, 0, 0], "tiny@2.0")], dimension=5)
    assert await found(settings, vector=[1.0, 0, 0, 0, 0]) == ["b"]
    client = connect(settings)
    old = f"{settings.collection}_tiny_1.0"
    assert (await client.count(old)).count == 1
    aliases = {a.alias_name: a.collection_name for a in (await client.get_aliases()).aliases}
    await client.close()
    assert aliases[settings.collection] == f"{settings.collection}_tiny_2.0"


async def test_a_vector_that_is_not_finite_is_refused_alone(settings: QdrantSettings) -> None:
    sink = QdrantSink(settings, MODEL, 4)
    await sink.open()
    bad = a_frame("bad", [1.0, float("nan"), 0, 0])
    with pytest.raises(PermanentSinkError, match=r"image bad .* NaN"):
        await sink.write([a_frame("good", [1.0, 0, 0, 0]), bad])
    await sink.write([a_frame("good", [1.0, 0, 0, 0])])
    await sink.close()
    assert await found(settings, vector=[1.0, 0, 0, 0]) == ["good"]


@pytest.mark.parametrize(
    ("vector", "model", "complaint"),
    [([1.0, 0.0], MODEL, "2 components, not 4"), ([1.0, 0, 0, 0], "other@1", "of model other@1")],
)
async def test_a_vector_of_another_embedder_is_refused(
    settings: QdrantSettings, vector: list[float], model: str, complaint: str
) -> None:
    sink = QdrantSink(settings, MODEL, 4)
    with pytest.raises(PermanentSinkError, match=complaint):
        await sink.write([a_frame("odd", vector, model)])
    await sink.close()


async def test_a_model_that_changes_its_dimension_is_refused_at_the_start(
    settings: QdrantSettings,
) -> None:
    await stored(settings, [a_frame("a", [1.0, 0, 0, 0])])
    with pytest.raises(PermanentSinkError, match="4 dimensions, but"):
        await QdrantSink(settings, MODEL, 5).open()


async def test_a_collection_that_was_deleted_comes_back_with_the_next_attempt(
    settings: QdrantSettings,
) -> None:
    sink = QdrantSink(settings, MODEL, 4)
    await sink.open()
    client = connect(settings)
    await client.delete_collection(sink.collection)
    frames = [a_frame("a", [1.0, 0, 0, 0])]
    with pytest.raises(TransientSinkError, match="gone"):
        await sink.write(frames)
    await sink.write(frames)
    await sink.close()
    await client.close()
    assert await found(settings, vector=[1.0, 0, 0, 0]) == ["a"]


async def test_a_large_batch_goes_in_several_requests(settings: QdrantSettings) -> None:
    small = settings.model_copy(update={"max_points_per_request": 7})
    await stored(small, [a_frame(f"p{n}", v) for n, v in enumerate(some_vectors(40))])
    async with VectorReader(settings) as reader:
        assert await reader.count() == 40


async def test_a_name_taken_by_a_collection_is_refused(settings: QdrantSettings) -> None:
    client = connect(settings)
    await client.create_collection(
        settings.collection,
        vectors_config=models.VectorParams(size=4, distance=models.Distance.COSINE),
    )
    await client.close()
    with pytest.raises(PermanentSinkError, match=r"rename it, or set qdrant\.collection"):
        await QdrantSink(settings, MODEL, 4).open()


async def test_a_wrong_key_is_a_permanent_error(settings: QdrantSettings) -> None:
    wrong = QdrantSettings.model_validate(settings.model_dump() | {"api_key": "wrong"})
    with pytest.raises(PermanentSinkError, match=r"UNAUTHENTICATED.*qdrant\.api_key"):
        await QdrantSink(wrong, MODEL, 4).open()


async def test_a_refused_port_is_a_transient_error(settings: QdrantSettings) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    away = settings.model_copy(update={"grpc_port": port, "timeout": 2})
    with pytest.raises(TransientSinkError, match=f"127.0.0.1:{port}"):
        await QdrantSink(away, MODEL, 4).open()
    with pytest.raises(TransientSinkError):
        await found(away, image_id="a")


async def test_searching_needs_a_vector_or_an_id_and_not_both(settings: QdrantSettings) -> None:
    async with VectorReader(settings) as reader:
        with pytest.raises(ValueError, match="exactly one"):
            await reader.search()
        with pytest.raises(ValueError, match="exactly one"):
            await reader.search(vector=[1.0], image_id="a")


def test_the_collection_is_named_for_the_embedder_and_its_version() -> None:
    settings = QdrantSettings()
    assert settings.collection_for("efficientnet-lite0@0.1.0") == "images_efficientnet-lite0_0.1.0"
    assert settings.collection_for("org/clip:L 14@2") == "images_org_clip_L_14_2"


def test_the_key_is_not_printed() -> None:
    assert "hush" not in repr(QdrantSettings(api_key="hush"))


@pytest.mark.parametrize("given", [{"collection": "a b"}, {"url": "x"}, {"host": ""}])
def test_settings_that_cannot_work_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        QdrantSettings.model_validate(given)
