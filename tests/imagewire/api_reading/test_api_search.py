"""What is promised of searches and of near-duplicates."""

from __future__ import annotations

import base64
from typing import Any

import pytest

pytestmark = [pytest.mark.xdist_group("api-reading"), pytest.mark.timeout(300)]


def found(library: Any, key: str = "reader", **asked: Any) -> list[dict[str, Any]]:
    answer = library.post("/v1/search", key, json=asked)
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    scores = [result["score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    return results


def ids(results: list[dict[str, Any]]) -> list[str]:
    return [result["image_id"] for result in results]


def test_a_stored_image_finds_its_copies_first(library: Any) -> None:
    results = found(library, image_id="bus-small", limit=3)
    assert "bus-small" not in ids(results)
    assert results[0]["image_id"] in ("bus", "bus-copy")
    assert results[0]["copies"] == 2
    assert results[0]["score"] > 0.8
    contents = [result["content_id"] for result in results]
    assert len(set(contents)) == 3  # the same bytes are one result


@pytest.mark.parametrize("way", ["form", "json", "vector"])
def test_a_picture_and_its_vector_find_the_same(library: Any, way: str) -> None:
    content = (library.photos / "3.bin").read_bytes()  # zidane
    if way == "form":
        answer = library.post(
            "/v1/search", files={"picture": ("a.jpg", content)}, data={"limit": "2"}
        )
        assert answer.status_code == 200, answer.text
        results = answer.json()["results"]
    elif way == "json":
        results = found(library, picture=base64.b64encode(content).decode(), limit=2)
    else:
        vector = library.frames["zidane"].findings.embedding.vector
        results = found(library, vector=[3 * value for value in vector], limit=2)
    assert results[0]["image_id"] == "zidane"
    assert results[0]["score"] > 0.98


def test_filters_narrow_a_search(library: Any) -> None:
    vector = library.frames["bus"].findings.embedding.vector
    assert {each["feed"] for each in found(library, vector=vector, feed="secret")} == {"secret"}
    assert all(each["score"] >= 0.7 for each in found(library, vector=vector, min_score=0.7))
    after = found(library, vector=vector, since="2026-09-21T14:13:25Z")
    assert not {"bus", "bus-copy", "bus-small"} & set(ids(after))
    label = library.frames["zidane"].findings.objects[0].label
    with_label = found(library, vector=vector, labels=[label])
    assert with_label and all(label in each["labels"] for each in with_label)


def test_a_verdict_is_the_one_in_force(library: Any) -> None:
    vector = library.frames["bus"].findings.embedding.vector
    # One was blocked by the policy, the other by a person after its point was written.
    blocked = found(library, vector=vector, verdict="block")
    assert set(ids(blocked)) == {"blocked", "zidane"}
    assert "zidane" not in ids(found(library, vector=vector, verdict="allow"))


def test_a_key_for_one_feed_finds_nothing_of_another(library: Any) -> None:
    vector = library.frames["hopper"].findings.embedding.vector
    assert found(library, vector=vector, limit=1)[0]["image_id"] == "hopper"
    assert {each["feed"] for each in found(library, "gate", vector=vector, limit=50)} == {"gate"}
    assert library.post("/v1/search", "gate", json={"image_id": "hopper"}).status_code == 404
    refused = library.post("/v1/search", "gate", json={"image_id": "bus", "feed": "secret"})
    assert refused.status_code == 403


def test_a_vector_that_another_feed_stored_under_the_same_id_is_not_searched_by(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"image_id": "bus", "limit": 3}
    assert library.post("/v1/search", "gate", json=asked).status_code == 200

    async def of_another(image_id: str) -> str:
        return "secret"

    monkeypatch.setattr(library.services.vectors, "feed_of", of_another)
    assert library.post("/v1/search", "gate", json=asked).status_code == 404
    assert library.post("/v1/search", json=asked).status_code == 200


@pytest.mark.parametrize(
    ("asked", "status", "kind"),
    [
        ({}, 422, "invalid-request"),
        ({"image_id": "a", "text": "b"}, 422, "invalid-request"),
        ({"image_id": "nobody"}, 404, "unknown-image"),
        ({"text": "a red car"}, 422, "no-text-tower"),
        ({"vector": [0.0, 0.0]}, 422, "invalid-request"),
        ({"vector": [1.0, 2.0]}, 422, "wrong-vector"),
        ({"vector": [1e400]}, 422, "invalid-request"),
        ({"picture": "no base64!"}, 422, "invalid-request"),
        ({"picture": base64.b64encode(b"no picture").decode()}, 422, "unusable-picture"),
        ({"image_id": "bus", "limit": 1001}, 422, "invalid-request"),
        ({"image_id": "bus", "colour": "red"}, 422, "invalid-request"),
    ],
)
def test_what_cannot_be_searched_is_a_problem(
    library: Any, asked: dict[str, Any], status: int, kind: str
) -> None:
    import json

    answer = library.post(
        "/v1/search", content=json.dumps(asked), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    assert answer.json()["type"] == f"urn:imagewire:problem:{kind}"


def test_near_duplicates_are_grouped_around_the_earliest(library: Any) -> None:
    span = {"since": "2026-09-21T00:00:00Z", "until": "2026-09-22T00:00:00Z"}
    answer = library.post("/v1/duplicates", json=span)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["looked_at"], body["complete"]) == (11, True)
    buses = ids(body["groups"][0]["images"])
    assert buses[:3] == ["bus", "bus-copy", "bus-small"]
    assert not {"zidane", "inline", "hopper"} & set(buses)
    assert 0.8 <= body["groups"][0]["similarity"] <= 1
    exact = library.post("/v1/duplicates", json=span | {"threshold": 0.9999}).json()
    assert {"bus", "bus-copy"} <= set(ids(exact["groups"][0]["images"]))
    assert library.post("/v1/duplicates", json=span | {"feed": "secret"}).json()["groups"] == []
    backwards = {"since": span["until"], "until": span["since"]}
    assert library.post("/v1/duplicates", json=backwards).status_code == 422
