"""What is promised of banning what resembles an image that is stored."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from imagewire.api.ban_desk import BanDesk
from operators.ban_records import BannedExemplar
from operators.exemplars import Exemplars
from sinks.qdrant.reader import VectorReader

pytestmark = [pytest.mark.xdist_group("api-reading"), pytest.mark.timeout(300)]


def test_a_stored_image_becomes_an_exemplar_by_its_id(library: Any) -> None:
    assert library.post("/v1/bans", "chief", json={"name": "twins"}).status_code == 200
    asked = {"image_ids": ["bus", "bus-copy", "broken", "nobody"], "exemplar": True}
    added = library.post("/v1/bans/twins", "chief", json=asked).json()
    assert added["unknown"] == ["broken", "nobody"]
    findings = library.frames["bus"].findings
    [entry] = added["added"]  # of two with the same bytes
    assert (entry["kind"], entry["hash"]) == ("exemplar", findings.fingerprint.content_id)
    assert entry["model"] == findings.embedding.model
    nothing = library.post("/v1/bans/twins", "chief", json=asked | {"image_ids": ["nobody"]})
    assert nothing.status_code == 404 and nothing.json()["unknown"] == ["nobody"]


def test_such_an_exemplar_knows_copies_and_nothing_else(library: Any) -> None:
    embeddings = {name: frame.findings.embedding for name, frame in library.frames.items()}
    content, model = "c" * 64, embeddings["bus"].model
    row = {"image_id": "bus", "content_id": content, "embedder": model}

    async def rows(*_: Any) -> list[dict[str, Any]]:
        return [row]

    async def exemplars() -> tuple[list[Any], list[str]]:
        async with VectorReader(library.settings.qdrant) as reader:
            assert await reader.vectors_of("no-such@1", ["bus"]) == {}
            desk = BanDesk(library.settings, rows, Never(), Never(), reader.vectors_of)
            return await desk.of_images("twins", ["bus"], "", exemplar=True)

    [record], unknown = asyncio.run(exemplars())
    assert isinstance(record, BannedExemplar) and unknown == []
    known = Exemplars()
    known.add(0, record)
    names = list(embeddings)
    vectors = [embeddings[name].vector for name in names]
    near = {names[position] for position, *_ in known.near(model, vectors, {0: 0.2})}
    assert {"bus", "bus-copy", "bus-small"} <= near
    assert not {"zidane", "inline", "blocked", "hopper"} & near


class Never:
    """Is not asked."""

    async def __call__(self, *_: Any) -> Any:
        raise AssertionError
