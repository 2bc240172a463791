"""What is promised to reviewers over HTTP: no image twice, decisions that count, and undo."""

from __future__ import annotations

import concurrent.futures
from typing import Any

import pytest

from operators.findings import RuleHit

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("api-asking")]


def fill(place: Any, feed: str, count: int) -> list[str]:
    """Images that wait, the oldest first."""
    hits = [RuleHit("unsure", "review", "look"), RuleHit("quiet", "block", "", shadow=True)]
    names = [f"{feed}-{number}" for number in range(count)]
    place.write(
        [
            place.image(name, feed, "review", rules=hits, text="M150", ago=100.0 - number)
            for number, name in enumerate(names)
        ]
    )
    return names


def decide(place: Any, key: str = "ann", **fields: Any) -> Any:
    return place.post("/v1/review/decisions", key, json=fields)


def queue(place: Any, feed: str, key: str = "ann", **parameters: Any) -> Any:
    answer = place.get("/v1/review/queue", key, params={"feed": feed, **parameters})
    assert answer.status_code == 200, answer.text
    return answer.json()


def verdict(place: Any, image_id: str) -> list[Any]:
    rows = place.sql(
        "SELECT verdict, decided_by, reviewer FROM current_verdicts WHERE image_id = {i:String}",
        params={"i": image_id},
    )
    return list(rows[0])


def test_the_queue_shows_all_that_helps_to_decide_page_by_page(place: Any) -> None:
    names = fill(place, "pages", 5)
    first = queue(place, "pages", limit=2)
    assert first["waiting"]["policy"] == 5 and first["waiting"]["oldest"].endswith("Z")
    second = queue(place, "pages", limit=2, cursor=first["next"])
    third = queue(place, "pages", limit=2, cursor=second["next"])
    pages = [first, second, third]
    assert [image["image_id"] for page in pages for image in page["images"]] == names
    assert third["next"] is None
    image = first["images"][0]
    assert (
        image["verdict"] == "review" and image["rules"] == ["unsure"] and image["why"] == "policy"
    )
    assert image["labels"] == ["person", "bus"] and image["text"] == "M150"
    assert [rule["shadow"] for rule in image["fired"]] == [False, True]
    assert image["scores"] == {"nsfw": 0.25} and image["claimed_by"] is None


def test_two_reviewers_never_get_the_same_image(place: Any) -> None:
    names = fill(place, "claims", 6)

    def next_of(key: str) -> str:
        answer = place.get("/v1/review/next", key, params={"feed": "claims"})
        assert answer.status_code == 200, answer.text
        image = answer.json()["image"]
        assert image["claimed_until"] and image["claimed_by"] == key
        decided = decide(place, key, image_id=image["image_id"], decision="allow")
        assert decided.status_code == 200, decided.text
        return str(image["image_id"])

    def three(key: str) -> list[str]:
        return [next_of(key) for _ in range(3)]

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        got = [name for found in pool.map(three, ["ann", "bob"]) for name in found]
    assert sorted(got) == sorted(names)
    assert place.get("/v1/review/next", params={"feed": "claims"}).json()["image"] is None


def test_a_claimed_image_comes_again_to_its_reviewer_and_shows_in_the_queue(place: Any) -> None:
    names = fill(place, "again", 2)
    for _ in range(2):
        image = place.get("/v1/review/next", "bob", params={"feed": "again"}).json()["image"]
        assert image["image_id"] == names[0]
    held = {each["image_id"]: each["claimed_by"] for each in queue(place, "again")["images"]}
    assert held == {names[0]: "bob", names[1]: None}


def test_a_decision_takes_force_under_the_name_of_the_key(place: Any) -> None:
    [name, other] = fill(place, "force", 2)
    answer = decide(place, image_id=name, decision="block", reason="no", labels=["gore"]).json()
    [made] = answer["decisions"]
    assert made["reviewer"] == "ann" and made["decision"] == "block" and made["labels"] == ["gore"]
    assert [each["image_id"] for each in queue(place, "force")["images"]] == [other]
    place.until("in force", lambda: verdict(place, name) == ["block", "person", "ann"])


def test_many_images_are_decided_at_once_and_unknown_ones_named(place: Any) -> None:
    names = fill(place, "batch", 4)
    asked = [{"image_id": name, "decision": "allow"} for name in [*names, "nobody-knows"]]
    answer = decide(place, decisions=asked).json()
    assert [made["image_id"] for made in answer["decisions"]] == names
    assert answer["unknown"] == ["nobody-knows"]
    place.until(
        "stored",
        lambda: place.sql("SELECT count() FROM decisions WHERE feed = 'batch'") == [[4]],
    )
    assert decide(place, image_id="nobody-knows", decision="allow").status_code == 404
    twice = decide(place, decisions=asked[:1] * 2)
    assert twice.status_code == 422 and "twice" in twice.text


def test_a_decision_can_be_taken_back_at_once_and_the_image_waits_anew(place: Any) -> None:
    names = fill(place, "undo", 3)
    for name in names:
        decide(place, image_id=name, decision="block")
    last = place.post("/v1/review/undo").json()
    assert [each["image_id"] for each in last["withdrawn"]] == [names[2]]
    more = place.post("/v1/review/undo", json={"image_ids": names}).json()
    assert sorted(each["image_id"] for each in more["withdrawn"]) == names[:2]
    assert {each["decision"] for each in more["withdrawn"]} == {"block"}
    place.until("waits anew", lambda: len(queue(place, "undo")["images"]) == 3)
    nothing = place.post("/v1/review/undo", json={"image_ids": names})
    assert nothing.status_code == 404


def test_a_stored_decision_is_taken_back_by_its_maker_only(place: Any) -> None:
    [name] = fill(place, "own", 1)
    decide(place, image_id=name, decision="block")
    place.until("stored", lambda: verdict(place, name)[0] == "block")
    place.services.reviews._recent.clear()  # as after a restart of this process
    assert place.post("/v1/review/undo", "bob", json={"image_id": name}).status_code == 404
    answer = place.post("/v1/review/undo", "ann", json={"image_id": name}).json()
    assert answer["withdrawn"][0]["decision"] == "block"
    place.until("the policy's again", lambda: verdict(place, name)[0] == "review")


def test_a_key_decides_in_its_own_name_unless_it_is_an_admins(place: Any) -> None:
    [name] = fill(place, "names", 1)
    answer = decide(place, "ann", image_id=name, decision="allow", reviewer="bob")
    assert answer.status_code == 403
    odd = decide(place, "chief", image_id=name, decision="allow", reviewer="ca\nrol")
    assert odd.status_code == 422 and "U+000A" in odd.text
    made = decide(place, "chief", image_id=name, decision="allow", reviewer="carol").json()
    assert made["decisions"][0]["reviewer"] == "carol"
    back = place.post("/v1/review/undo", "chief", json={"reviewer": "carol"}).json()
    assert back["withdrawn"][0]["image_id"] == name


def test_a_key_that_is_confined_to_a_feed_sees_and_decides_nothing_else(place: Any) -> None:
    [name] = fill(place, "not-eves", 1)
    fill(place, "eves", 1)
    assert place.get("/v1/review/queue", "eve", params={"feed": "not-eves"}).status_code == 403
    seen = place.get("/v1/review/queue", "eve").json()
    assert {image["feed"] for image in seen["images"]} == {"eves"}
    assert seen["waiting"]["policy"] == 1
    assert decide(place, "eve", image_id=name, decision="allow").status_code == 404
    assert place.get("/v1/review/next", "eve").json()["image"]["feed"] == "eves"
    assert place.get("/v1/review/stats", "eve").status_code == 403


def test_statistics_name_reviewers_and_rules(place: Any) -> None:
    hits = [RuleHit("bare", "block")]
    names = [f"audit-{number}" for number in range(2)]
    place.write([place.image(n, "audit", "block", rules=hits, audit=["bare"]) for n in names])
    for name, decision in zip(names, ("block", "allow"), strict=True):
        assert decide(place, image_id=name, decision=decision).status_code == 200

    def precision() -> Any:
        stats = place.get("/v1/review/stats").json()
        return [row for row in stats["rule_precision"] if row["rule"] == "bare"] and stats

    stats = place.until("stored", precision)
    [row] = [row for row in stats["rule_precision"] if row["rule"] == "bare"]
    assert row["audited"] == 2 and row["precision"] == 0.5 and 0 < row["low"] < row["high"] < 1
    assert "ann" in {row["reviewer"] for row in stats["reviewers"]}
    assert stats["queue"]["policy"] >= 0


def test_reviews_need_the_scope(place: Any) -> None:
    for method, path in (("GET", "queue"), ("GET", "next"), ("GET", "stats"), ("POST", "undo")):
        assert place.ask(method, f"/v1/review/{path}", "guest").status_code == 403
