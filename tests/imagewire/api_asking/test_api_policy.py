"""What is promised of policy, models, bans and statistics over HTTP."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib.util
import json
import secrets
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from operators.findings import RuleHit

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("api-asking")]

SMALL = '[[rules]]\nname = "all"\nwhen = "true"\naction = "review"\n'


def test_rules_are_shown_with_how_often_they_fire(place: Any) -> None:
    hit = RuleHit("too-naked", "block")
    place.write(
        [
            place.image("p1", "policy", "block", rules=[hit]),
            place.image("p2", "policy", "allow", rules=[RuleHit("crowd", "review", shadow=True)]),
            place.image("p3", "policy", "allow", rules=[RuleHit("long-gone", "review")]),
        ]
    )
    shown = place.get("/v1/policy").json()
    assert shown["source"] == "file" and shown["version"].startswith("house-")
    rules = {rule["name"]: rule for rule in shown["rules"]}
    assert rules["too-naked"]["condition"] == "scores.nsfw > 0.8"
    assert rules["too-naked"]["fired"] == 1 and rules["too-naked"]["shadow"] is False
    assert rules["crowd"]["shadow"] is True and rules["crowd"]["fired"] == 1
    assert rules["too-naked"]["hit_rate"] == round(1 / shown["images"], 6)
    assert "long-gone" in {rule["name"] for rule in shown["other_rules"]}
    assert {"version": "house-1"}.items() <= shown["versions"][0].items()
    confined = place.get("/v1/policy", "eve").json()
    assert {rule["fired"] for rule in confined["rules"]} == {0}
    assert {rule["name"]: rule["feeds"] for rule in confined["rules"]} == {
        "too-naked": [],
        "crowd": ["eve*"],
    }
    assert (confined["text"], confined["warnings"]) == ("", [])


def test_a_policy_is_checked_put_in_force_and_withdrawn(place: Any) -> None:
    wrong = {"text": '[[rules]]\nname = "a"\nwhen = "scores.nsfw >"\naction = "block"\n'}
    checked = place.post("/v1/policy/check", "chief", json=wrong).json()
    assert checked["usable"] is False and ":3:" in checked["error"]
    refused = place.ask("PUT", "/v1/policy", json=wrong)
    assert refused.status_code == 422 and ":3:" in refused.json()["detail"]
    assert place.ask("PUT", "/v1/policy", "ann", json={"text": SMALL}).status_code == 403

    put = place.ask("PUT", "/v1/policy", json={"text": SMALL}).json()
    shown = place.until(
        "shown",
        lambda: (found := place.get("/v1/policy").json())["source"] == "topic" and found,
    )
    assert shown["version"] == put["version"] and shown["text"] == SMALL
    assert [rule["name"] for rule in shown["rules"]] == ["all"]
    place.ask("DELETE", "/v1/policy")
    place.until("withdrawn", lambda: place.get("/v1/policy").json()["source"] == "file")


def test_a_policy_is_tried_on_what_is_stored(place: Any) -> None:
    """The same as `imagewire policy diff --json`, within bounds."""
    place.write([place.image(f"t{number}", "trial", "allow") for number in range(6)])
    trial = {"text": SMALL, "since": "1h", "feeds": ["trial"]}
    found = place.post("/v1/policy/diff", "chief", json=trial).json()
    assert (found["before"], found["images"], found["changed"]) == ("the stored verdicts", 6, 6)
    assert (found["stored"], found["one_in"], found["complete"]) == (6, 1, True)
    [change] = found["changes"]
    assert {"feed": "trial", "from": "allow", "to": "review", "images": 6}.items() <= change.items()
    [rule] = found["rules"]
    assert (rule["rule"], rule["before"], rule["after"]) == ("all", 0, 6)

    some = place.post("/v1/policy/diff", "chief", json=trial | {"max_images": 2}).json()
    assert some["one_in"] == 3 and some["images"] < 6 and "one in 3" in some["notes"][-1]
    same = place.post("/v1/policy/diff", "chief", json=trial | {"against": SMALL}).json()
    assert (same["before"], same["changed"]) == (same["after"], 0)

    for wrong in ({"text": "x"}, {"against": "[[rules]]"}, {"since": "soon"}, {"since": "9" * 30}):
        refused = place.post("/v1/policy/diff", "chief", json=trial | wrong)
        assert refused.status_code == 422, wrong
        assert refused.json()["errors"][0]["where"] == next(iter(wrong))
    assert place.post("/v1/policy/diff", "ann", json=trial).status_code == 403


def test_models_are_named_with_what_they_are(place: Any) -> None:
    place.write([place.image("m1", "models")])
    answer = place.get("/v1/models").json()
    [shown] = [each for each in answer["models"] if each["model"] == "nano@1"]
    assert shown["operator"] == "objects" and shown["images"] >= 1
    assert (shown["name"], shown["version"], shown["task"]) == ("nano", "1", None)
    assert answer["drift"] == []  # there is no week to compare with


def test_lists_are_made_changed_filled_and_taken_away(place: Any) -> None:
    made = place.post("/v1/bans", "chief", json={"name": "shop", "reason": "theft"}).json()
    assert made["action"] == "block" and made["reason"] == "theft"
    changed = place.post("/v1/bans", "chief", json={"name": "shop", "max_distance": 10}).json()
    assert changed["max_distance"] == 10 and changed["reason"] == "theft"

    frame = place.image("ban-me", "bans")
    place.write([frame])
    prints = frame.findings.fingerprint
    photo = (
        Path(importlib.util.find_spec("skimage").origin).parent / "data/chelsea.png"
    ).read_bytes()  # type: ignore[union-attr, arg-type]
    asked = {
        "image_ids": ["ban-me", "nobody"],
        "sha256": ["AB" * 32],
        "pictures": [base64.b64encode(photo).decode()],
        "comment": "seen",
    }
    added = place.post("/v1/bans/shop", "chief", json=asked).json()
    assert added["unknown"] == ["nobody"]
    hashes = {(each["kind"], each["hash"]) for each in added["added"]}
    assert {
        *(("sha256", "ab" * 32), ("sha256", prints.content_id), ("pdq", prints.pdq)),
        ("sha256", hashlib.sha256(photo).hexdigest()),
    } <= hashes
    assert len(hashes) == 5

    [shown] = [each for each in place.get("/v1/bans").json()["lists"] if each["name"] == "shop"]
    assert shown["entries"] == {"pdq": 2, "sha256": 3, "exemplar": 0}
    pages, cursor = [], None
    while True:
        page = place.get("/v1/bans/shop", params={"limit": 2, "cursor": cursor or None}).json()
        pages += page["entries"]
        if (cursor := page["next"]) is None:
            break
    assert {(each["kind"], each["hash"]) for each in pages} == hashes and len(pages) == 5
    assert {each["comment"] for each in pages} == {"seen"}

    assert place.ask("GET", "/v1/bans/shop", "eve").status_code == 403  # of all feeds
    entry = f"/v1/bans/shop/sha256/{'AB' * 32}"
    assert place.ask("DELETE", entry).json() == {"removed": 1}
    assert place.ask("DELETE", entry).status_code == 404
    assert place.ask("DELETE", "/v1/bans/shop").json() == {"removed": 5}
    assert place.get("/v1/bans/shop").status_code == 404


def test_bans_are_for_admins_and_what_is_no_ban_is_refused(place: Any) -> None:
    assert place.post("/v1/bans", "ann", json={"name": "x"}).status_code == 403
    place.post("/v1/bans", "chief", json={"name": "strict"})
    for wrong in ({}, {"pdq": ["abc"]}, {"pictures": ["%%"]}, {"pictures": ["aGVsbG8="]}):
        assert place.post("/v1/bans/strict", "chief", json=wrong).status_code == 422, wrong
    assert place.post("/v1/bans/no-such", "chief", json={"sha256": ["a" * 64]}).status_code == 404
    assert place.post("/v1/bans", "chief", json={"name": "../x"}).status_code == 422


def test_statistics_tell_what_was_done_and_what_waits(place: Any) -> None:
    failed = place.image("s9", "stats")
    failed.fail("decode", "truncated", "the end is missing")
    place.write([place.image(f"s{number}", "stats", "review", ago=2.0) for number in range(10)])
    place.write([failed])

    def seen() -> Any:
        answer = place.get("/v1/stats", params={"minutes": 2, "feed": "stats"}).json()
        done = sum(point["images_per_second"] for point in answer["points"])
        return answer if done else None

    answer = place.until("the step is over", seen)
    points = answer["points"]
    assert answer["step_seconds"] == 5 and len(points) == 24
    assert round(sum(p["images_per_second"] for p in points) * 5) == 10
    [busy] = [point for point in points if point["images_per_second"]]
    assert busy["latency_p99_ms"] >= busy["latency_p50_ms"] > 1000
    assert points[0]["latency_p50_ms"] is None
    assert sum(point["failures"] for point in points) == 1
    assert answer["totals"] == {"images": 10, "review_waiting": 10, "dead_letters": 1}
    assert place.get("/v1/stats", "eve", params={"feed": "stats"}).status_code == 403


def test_lag_is_what_the_workers_have_not_acknowledged(place: Any) -> None:
    """Published and never worked on; then all but one acknowledged."""
    kafka = place.settings.kafka

    async def publish(count: int) -> None:
        producer = AIOKafkaProducer(**kafka.producer_options())
        await producer.start()
        for number in range(count):
            value = json.dumps({"uri": f"http://x/{number}{secrets.token_hex(4)}"}).encode()
            await producer.send_and_wait(kafka.topics.images, value, partition=number % 2)
        await producer.stop()

    async def acknowledge(all_but: int) -> None:
        consumer = AIOKafkaConsumer(
            group_id=place.settings.stream.group, enable_auto_commit=False, **kafka.client_options()
        )
        await consumer.start()
        from aiokafka import TopicPartition

        partitions = [TopicPartition(kafka.topics.images, number) for number in range(2)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        ends[partitions[0]] -= all_but
        await consumer.commit(ends)
        await consumer.stop()

    def lag() -> Any:
        return place.get("/v1/stats").json()["lag"]

    asyncio.run(publish(7))
    waiting = place.until("seven wait", lambda: (now := lag()) and now["records"] == 7 and now)
    assert 0 < waiting["seconds"] < 120
    asyncio.run(acknowledge(1))
    place.until("one waits", lambda: lag()["records"] == 1)
    asyncio.run(acknowledge(0))
    assert place.until("none waits", lambda: lag() == {"records": 0, "seconds": 0.0})
