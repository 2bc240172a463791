"""What is promised of lists of images, of one image, and of feeds."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from imagewire.api import image_queries
from sinks.kafka.records import findings_record

pytestmark = [pytest.mark.xdist_group("api-reading"), pytest.mark.timeout(300)]


def pages(library: Any, **parameters: Any) -> list[list[dict[str, Any]]]:
    """Every page of a list."""
    found = []
    cursor: str | None = None
    while True:
        asked = parameters | ({"cursor": cursor} if cursor else {})
        answer = library.get("/v1/images", params=asked)
        assert answer.status_code == 200, answer.text
        found.append(answer.json()["images"])
        cursor = answer.json()["next"]
        if cursor is None:
            return found


def ids(images: list[dict[str, Any]]) -> list[str]:
    return [image["image_id"] for image in images]


def test_pages_hold_every_image_once_newest_first(library: Any) -> None:
    found = pages(library, feed="wall", limit=17)
    assert [len(page) for page in found] == [17] * 7 + [11]
    images = [image for page in found for image in page]
    assert len(set(ids(images))) == 130
    order = [(image["event_time"], image["image_id"]) for image in images]
    assert order == sorted(order, reverse=True)


def test_filters_choose_what_they_say(library: Any) -> None:
    def found(**parameters: Any) -> set[str]:
        return {image["image_id"] for page in pages(library, **parameters) for image in page}

    assert len(found(feed="wall", verdict="review")) == 13
    assert found(feed="gate", verdict="review") == {"bus-small"}
    assert found(text="DE ÁLC") == {"bus"}
    assert found(text="de alcala") == {"bus"}
    assert found(text="'; DROP TABLE images_raw --") == set()
    assert {"zidane", "inline"} <= found(label="FACE_MALE") | found(label="FACE_FEMALE")
    assert found(label="no such label") == set()
    after = "2026-09-21T14:13:21Z"
    assert found(feed="gate", since=after) | {"bus"} == found(feed="gate")
    assert found(feed="gate", until=after) == {"bus"}


def test_the_verdict_in_force_is_a_persons_where_there_is_one(library: Any) -> None:
    images = {image["image_id"]: image for image in pages(library, feed="gate")[0]}
    assert (images["zidane"]["verdict"], images["zidane"]["decided_by"]) == ("block", "person")
    # Decided and withdrawn, which counts for the copy as well.
    assert (images["bus"]["verdict"], images["bus"]["decided_by"]) == ("allow", "policy")
    assert images["bus-copy"]["decided_by"] == "policy"
    blocked = {image["image_id"] for image in pages(library, verdict="block")[0]}
    assert blocked == {"zidane", "blocked"}


def test_an_image_has_its_findings_as_they_stand_on_kafka(library: Any) -> None:
    import msgspec

    detail = library.get("/v1/images/bus").json()
    expected = msgspec.to_builtins(findings_record(library.frames["bus"]))
    found = detail["findings"]
    assert found.keys() == expected.keys()
    for name in ("image_id", "content_id", "feed", "event_time", "uri", "metadata", "image"):
        assert found[name] == expected[name], name
    assert found["verdict"] == expected["verdict"]
    assert found["fingerprint"] == expected["fingerprint"]
    assert found["texts"] == expected["texts"] or len(found["texts"]) == len(expected["texts"])
    assert [each["label"] for each in found["objects"]] == [
        each["label"] for each in expected["objects"]
    ]
    assert found["scores"]["nsfw"] == pytest.approx(expected["scores"]["nsfw"], abs=1e-5)
    image = detail["image"]
    assert image["text"] == "Calle de Álcalá\nmail [email]"
    assert (image["width"], image["height"]) == (810, 1080)
    assert image["rules"] == []  # a shadow rule has no part in the verdict
    assert detail["failure"] is None


def test_history_tells_who_decided_to_reviewers_only(library: Any) -> None:
    def history(key: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = library.get("/v1/images/bus-copy", key).json()["history"]
        return entries

    assert [(each["by"], each["verdict"], each["withdrawn"]) for each in history("reader")] == [
        ("policy", "allow", False),
        ("person", "block", False),
        ("person", "allow", True),
    ]
    assert history("reader")[1]["of_image"] == "bus"
    assert {each["reviewer"] for each in history("reader")} == {None}
    assert [each["reviewer"] for each in history("reviewer")] == [None, "ben", "ben"]


def test_history_tells_nothing_of_an_image_with_the_same_id_in_a_feed_of_others(
    library: Any,
) -> None:
    def deciders(key: str, image_id: str) -> list[str]:
        history = library.get(f"/v1/images/{image_id}", key).json()["history"]
        return [each["by"] for each in history]

    assert deciders("reader", "bus-small") == ["policy", "person"]
    assert deciders("gate", "bus-small") == ["policy"]
    assert deciders("gate", "zidane") == ["policy", "person"]


def test_ids_of_any_text_are_addresses(library: Any) -> None:
    odd = next(image for image in library.frames if image.startswith("odd/"))
    found = library.get(f"/v1/images/{quote(odd, safe='')}")
    assert found.status_code == 200
    assert found.json()["image"]["image_id"] == odd
    picture = library.get(f"/v1/images/{quote(odd, safe='')}/picture", params={"size": 64})
    assert picture.headers["content-type"] == "image/webp"
    # An id that ends like another address is an id all the same.
    missing = library.get("/v1/images/bus%2Fpicture")
    assert missing.status_code == 404
    assert missing.json()["type"] == "urn:imagewire:problem:unknown-image"


@pytest.mark.parametrize(
    "text", ["'", "\\", "\\'; --", "{x:String}", "%s{0}", "\x00", "\n\t", "\u202e", "😀" * 60]
)
def test_whatever_is_asked_for_is_a_value(library: Any, text: str) -> None:
    for name in ("text", "label", "feed"):
        answer = library.get("/v1/images", params={name: text})
        assert (answer.status_code, answer.json()["images"]) == (200, []), answer.text
    assert library.get(f"/v1/images/{quote(text, safe='')}").status_code == 404


def test_an_image_that_failed_says_why(library: Any) -> None:
    detail = library.get("/v1/images/broken").json()
    assert detail["findings"] is None
    assert detail["failure"]["reason"] == "not-an-image"
    assert detail["image"]["verdict"] is None


def test_the_picture_in_a_data_address_is_not_told(library: Any) -> None:
    detail = library.get("/v1/images/dot").json()
    assert detail["image"]["uri"] is None
    assert "data:" not in str(detail)


def test_a_key_for_one_feed_sees_nothing_of_another(library: Any) -> None:
    assert {image["feed"] for image in library.get("/v1/images", "gate").json()["images"]} == {
        "gate"
    }
    assert library.get("/v1/images", "gate", params={"feed": "wall"}).status_code == 403
    for path in ("/v1/images/hopper", "/v1/images/hidden", "/v1/images/hopper/picture"):
        assert library.get(path, "gate").status_code == 404
        assert library.get(path).status_code != 404 or path == "/v1/images/hidden"
    assert [each["feed"] for each in library.get("/v1/feeds", "gate").json()["feeds"]] == ["gate"]


def test_feeds_count_their_images_and_verdicts_in_force(library: Any) -> None:
    feeds = {each["feed"]: each for each in library.get("/v1/feeds").json()["feeds"]}
    assert feeds["wall"]["images"] == 130
    assert feeds["wall"]["review"] == 13
    assert (feeds["gate"]["images"], feeds["gate"]["block"], feeds["gate"]["review"]) == (10, 2, 1)
    assert feeds["secret"]["last_event_time"].endswith("Z")


def test_beyond_what_is_counted_feeds_tell_what_the_stored_sums_say(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repeats that are not merged yet count; decisions of people are in it."""
    counted = {each["feed"]: each for each in library.get("/v1/feeds").json()["feeds"]}
    monkeypatch.setattr(image_queries, "MOST_COUNTED", 0)
    summed = {each["feed"]: each for each in library.get("/v1/feeds").json()["feeds"]}
    assert summed.keys() == counted.keys()
    for feed, totals in counted.items():
        assert summed[feed]["last_event_time"] == totals["last_event_time"]
    assert summed["gate"] == counted["gate"] and summed["secret"] == counted["secret"]
    assert 130 <= summed["wall"]["images"] <= 150
    assert 13 <= summed["wall"]["review"] <= 15
    assert [each["feed"] for each in library.get("/v1/feeds", "gate").json()["feeds"]] == ["gate"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"cursor": "%%%"},
        {"cursor": "W10"},
        {"cursor": "bm9uc2Vuc2U"},
        {"limit": 0},
        {"limit": 201},
        {"since": "yesterday"},
        {"since": "2026-01-01T00:00:00"},
        {"until": "9999-12-31T23:59:59Z"},
        {"verdict": "none"},
    ],
)
def test_what_cannot_be_asked_is_a_problem(library: Any, parameters: dict[str, Any]) -> None:
    answer = library.get("/v1/images", params=parameters)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"]
