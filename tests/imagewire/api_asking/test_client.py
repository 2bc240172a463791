"""What is promised of the Python client: the API's verbs, and errors that say why."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from typing import Any

import httpx
import pytest

from imagewire.client import (
    ApiError,
    AsyncImagewire,
    Imagewire,
    InvalidRequestError,
    NotAllowedError,
    NotFoundError,
    SqlError,
    TooManyRequestsError,
    UnavailableError,
    UnreachableError,
)
from operators.findings import RuleHit

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("api-asking")]


def answering(*answers: Any, sent: list[httpx.Request] | None = None) -> httpx.MockTransport:
    """A transport that gives these answers, one after the other."""
    left = list(answers)

    def handle(request: httpx.Request) -> httpx.Response:
        if sent is not None:
            sent.append(request)
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, httpx.Response)
        return answer

    return httpx.MockTransport(handle)


def problem(status: int, kind: str = "busy", **more: Any) -> httpx.Response:
    content = {
        "type": f"urn:imagewire:problem:{kind}",
        "title": "T",
        "detail": "D",
        "instance": "r",
    }
    headers = {"Retry-After": "0"} if status in (429, 503) else {}
    return httpx.Response(status, json=content | {"status": status} | more, headers=headers)


def test_both_clients_have_the_same_verbs_with_the_same_arguments() -> None:
    def verbs(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in vars(kind).items()
            if callable(member) and not name.startswith("_")
        }

    assert verbs(Imagewire) == verbs(AsyncImagewire)


def test_a_person_works_the_queue_through_the_client(place: Any) -> None:
    hits = [RuleHit("unsure", "review", "look")]
    place.write([place.image(f"c{n}", "client", "review", rules=hits, ago=9 - n) for n in range(3)])
    with Imagewire(place.url, place.keys["ann"]) as wire:
        assert [image.image_id for image in wire.review_queue("client").images] == [
            "c0",
            "c1",
            "c2",
        ]
        first = wire.review_next("client").image
        assert first is not None and first.image_id == "c0" and first.claimed_by == "ann"
        made = wire.decide("c0", "block", reason="no", labels=["bus"])
        assert (made.reviewer, made.decision) == ("ann", "block")
        many = wire.decide_many({"c1": "allow", "nobody": "allow"})
        assert [each.image_id for each in many.decisions] == ["c1"] and many.unknown == ["nobody"]
        assert [each.image_id for each in wire.undo("c1")] == ["c1"]
        assert wire.review_stats().queue.policy >= 1
        assert {image.image_id for image in wire.images(feed="client")} == {"c0", "c1", "c2"}
        assert wire.image("c2").image.labels == ["person", "bus"]
        assert wire.stats(minutes=1, feed="client").totals["images"] == 3
        assert wire.policy().name and wire.models().models
        assert {feed.feed: feed.images for feed in wire.feeds()}["client"] == 3


def test_an_admin_keeps_lists_through_the_client(place: Any) -> None:
    with Imagewire(place.url, place.keys["chief"]) as wire:
        assert wire.set_banlist("by-client", reason="r", max_distance=4).max_distance == 4
        added = wire.ban("by-client", sha256=["cd" * 32], comment="c")
        assert [entry.hash for entry in added.added] == ["cd" * 32]
        assert wire.ban_entries("by-client").entries[0].comment == "c"
        assert "by-client" in {each.name for each in wire.banlists()}
        assert wire.unban("by-client", "sha256", "cd" * 32).removed == 1
        assert wire.remove_banlist("by-client").removed == 1
        with pytest.raises(InvalidRequestError, match="1:"):
            wire.put_policy("not toml [")
        place.write([place.image("tried", "by-client")])
        policy = "[[rules]]\nname='a'\nwhen='true'\naction='block'\n"
        tried = wire.diff_policy(policy, since="1h", feeds=["by-client"], max_images=9)
        [change] = tried.changes
        assert (change.before, change.after, change.examples) == ("allow", "block", ["tried"])


async def test_the_same_verbs_work_in_asyncio(place: Any) -> None:
    async with AsyncImagewire(place.url, place.keys["ann"]) as wire:
        result = await wire.sql("SELECT {n:UInt8} AS n, 'x' AS x", {"n": 7})
        assert list(result.dicts()) == [{"n": 7, "x": "x"}]
        table = await wire.sql_arrow("SELECT number FROM numbers(3)")
        assert table.to_pydict() == {"number": [0, 1, 2]}
        assert (await wire.sql_file("SELECT 1 AS a", "csv")).splitlines() == [b'"a"', b"1"]
        assert "images" in {view.name for view in (await wire.sql_schema()).views}
        async for image in wire.images(feed="no-such-feed"):
            raise AssertionError(image)


def test_errors_carry_what_the_api_said(place: Any) -> None:
    with Imagewire(place.url, place.keys["ann"]) as wire:
        with pytest.raises(NotFoundError) as missing:
            wire.image("no/such image?é")
        assert missing.value.kind == "unknown-image" and missing.value.request_id
        with pytest.raises(SqlError) as wrong:
            wire.sql("SELECT lable")
        assert wrong.value.code == 47 and wrong.value.message.startswith("Unknown expression")
        with pytest.raises(SqlError) as refused:
            wire.sql("DROP TABLE images_raw")
        assert refused.value.status == 403 and refused.value.code is None
        with pytest.raises(NotAllowedError):
            wire.withdraw_policy()
        with pytest.raises(InvalidRequestError) as invalid:
            wire.stats(minutes=0)
        assert invalid.value.extra["errors"][0]["where"].endswith("minutes")
    with Imagewire(place.url, "a-key-that-nobody-has") as stranger, pytest.raises(NotAllowedError):
        stranger.feeds()


def test_nobody_at_the_address_is_said_in_a_sentence() -> None:
    broken = answering(httpx.ConnectError("refused"))
    with (
        Imagewire("http://127.0.0.1:9", retries=0, transport=broken) as wire,
        pytest.raises(
            UnreachableError, match=r"no answer from http://127\.0\.0\.1:9: ConnectError"
        ),
    ):
        wire.feeds()
    page = answering(httpx.Response(200, text="<html>"))
    with Imagewire(transport=page) as wire, pytest.raises(UnreachableError, match="address"):
        wire.feeds()
    proxy = answering(httpx.Response(502, text="<html>bad gateway"))
    with Imagewire(transport=proxy) as wire, pytest.raises(UnavailableError, match="http-502"):
        wire.feeds()


@pytest.mark.parametrize("first", [problem(503), problem(429), httpx.ReadError("reset")])
def test_what_only_reads_is_asked_again(first: Any) -> None:
    sent: list[httpx.Request] = []
    ready = httpx.Response(200, json={"feeds": []})
    with Imagewire(transport=answering(first, ready, sent=sent)) as wire:
        assert wire.feeds() == [] and len(sent) == 2


@pytest.mark.parametrize(
    ("answer", "times", "error"),
    [
        (problem(503), 1, UnavailableError),
        (httpx.ReadError("reset"), 1, UnreachableError),
        (problem(429), 3, TooManyRequestsError),
    ],
)
def test_what_changes_something_is_sent_once(
    answer: Any, times: int, error: type[Exception]
) -> None:
    sent: list[httpx.Request] = []
    with Imagewire(transport=answering(answer, sent=sent)) as wire, pytest.raises(error):
        wire.decide("a", "allow")
    assert len(sent) == times


def test_the_key_goes_into_a_header_and_ids_are_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEWIRE_KEY", "a-key-from-the-environment")
    monkeypatch.setenv("IMAGEWIRE_URL", "http://wire.example:81")
    sent: list[httpx.Request] = []
    with Imagewire(transport=answering(problem(404), sent=sent)) as wire:
        for image_id in ("a/../b c?#%", ".."):
            with pytest.raises(ApiError):
                wire.image(image_id)
    assert sent[0].headers["Authorization"] == "Bearer a-key-from-the-environment"
    assert str(sent[0].url) == "http://wire.example:81/v1/images/a%2F..%2Fb%20c%3F%23%25"
    assert sent[1].url.raw_path == b"/v1/images/%2E%2E"
    assert all("key" not in str(request.url) for request in sent)


def events(*parts: str) -> httpx.Response:
    headers = {"Content-Type": "text/event-stream"}
    return httpx.Response(200, content="".join(parts).encode(), headers=headers)


def test_a_broken_stream_goes_on_where_it_broke(caplog: pytest.LogCaptureFixture) -> None:
    def event(number: int, image_id: str = "i") -> str:
        data = f'{{"image_id":"{image_id}{number}","feed":"f","action":"allow"}}'
        return f"id: 0:{number}\nevent: verdict\ndata: {data}\n\n"

    first = events("retry: 1\nid: 0:0\n: connected\n\n", event(1), event(2)[:-9])
    gap = 'id: 0:2\nevent: gap\ndata: {"partition":0,"first":1,"until":2}\n\n'
    second = events("retry: 1\n\n", gap, event(2, "odd\u2028"), "id: 0:9\n: heartbeat\n\n")
    sent: list[httpx.Request] = []
    answers = answering(first, second, problem(404, "gone"), sent=sent)
    with Imagewire(transport=answers) as wire:
        stream = wire.verdicts(feed="f", after="0:-1")
        assert [next(stream).image_id for _ in range(2)] == ["i1", "odd\u20282"]
        with pytest.raises(NotFoundError):
            next(stream)
    [told] = [record.getMessage() for record in caplog.records if "missing" in record.getMessage()]
    assert '"first":1,"until":2' in told
    assert [request.headers["Last-Event-ID"] for request in sent[:1]] == ["0:-1"]
    assert [request.headers["Last-Event-ID"] for request in sent[1:]] == ["0:1", "0:9"]


def test_the_client_needs_nothing_that_the_service_needs() -> None:
    code = (
        "import sys, imagewire.client\n"
        "heavy = {'torch', 'fastapi', 'aiokafka', 'pyarrow', 'numpy', 'pydantic', 'faust'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True
    )
    assert done.stdout.strip() == "[]"


def test_one_can_wait_for_an_image_that_is_not_stored_yet() -> None:
    sent: list[httpx.Request] = []
    ready = httpx.Response(200, json={"image": {"image_id": "a"}})
    answers = answering(problem(404), problem(404), ready, sent=sent)
    with Imagewire(transport=answers) as wire:
        assert wire.image("a", wait=30).image.image_id == "a" and len(sent) == 3
    with Imagewire(transport=answering(problem(404))) as wire, pytest.raises(NotFoundError):
        wire.image("a")
