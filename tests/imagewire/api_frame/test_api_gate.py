"""What every request to the API passes: keys, hosts, limits, and problems instead of errors."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from api_frame_stage import api_settings, asking
from fastapi import FastAPI
from pydantic import ValidationError

from imagewire.api import waiting
from imagewire.api.keys import Keys
from imagewire.api.limits import RateLimit
from imagewire.api.problems import Problem
from imagewire.api.services import Services
from imagewire.settings import ConfigurationError, Settings

KEYS = {
    name: secrets.token_urlsafe(24) for name in ("reader", "publisher", "reviewer", "admin", "gate")
}


def with_keys(**api: Any) -> Settings:
    keys = [
        {"name": "reader", "key": KEYS["reader"], "scopes": ["read"]},
        {"name": "publisher", "key": KEYS["publisher"], "scopes": ["publish"]},
        {"name": "reviewer", "key": KEYS["reviewer"], "scopes": ["read", "review"]},
        {"name": "admin", "key": KEYS["admin"], "scopes": ["admin"]},
    ]
    return api_settings(api={"keys": keys, **api})


def problem_of(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["type"] == f"urn:imagewire:problem:{kind}"
    assert found["status"] == status
    assert found["title"] and found["detail"]
    assert found["instance"] == answer.headers["x-request-id"]
    return found


async def test_every_error_is_a_problem_with_the_request_s_id() -> None:
    async with asking(api_settings()) as client:
        problem_of(await client.get("/v1/nothing"), 404, "not-found")
        problem_of(await client.get("/no/such/file.js"), 404, "not-found")
        problem_of(await client.delete("/healthz"), 405, "method-not-allowed")
        problem_of(await client.get("/v1/images:batch"), 405, "method-not-allowed")
        found = problem_of(
            await client.post("/v1/images?wait=soon", json={"uri": "data:,x"}),
            422,
            "invalid-request",
        )
        assert found["errors"][0]["where"] == "query.wait"
        problem_of(await client.post("/v1/images", content=b"{"), 415, "unknown-body")
        broken = await client.post(
            "/v1/images", content=b'{"uri": ', headers={"content-type": "application/json"}
        )
        problem_of(broken, 422, "invalid-request")


async def test_a_request_s_id_is_taken_over_unless_it_could_do_harm() -> None:
    async with asking(api_settings()) as client:
        kept = await client.get("/healthz", headers={"X-Request-Id": "trace-7.a_b"})
        assert kept.headers["x-request-id"] == "trace-7.a_b"
        for hostile in ("a b", "x" * 65, "<script>", "a\tb"):
            answer = await client.get("/healthz", headers={"X-Request-Id": hostile})
            assert re.fullmatch(r"[0-9a-f]{24}", answer.headers["x-request-id"])


async def test_every_answer_keeps_browsers_from_doing_more_than_they_should() -> None:
    async with asking(api_settings()) as client:
        for path in ("/", "/healthz", "/v1/nothing"):
            headers = (await client.get(path)).headers
            policy = headers["content-security-policy"]
            assert "default-src 'self'" in policy
            assert "frame-ancestors 'none'" in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert "access-control-allow-origin" not in headers
        preflight = await client.options(
            "/v1/images",
            headers={"Origin": "http://evil.test", "Access-Control-Request-Method": "POST"},
        )
        assert "access-control-allow-origin" not in preflight.headers


async def test_without_keys_a_web_site_reaches_nothing() -> None:
    async with asking(api_settings(api={"hosts": ["photos.internal"]})) as client:
        for host in ("127.0.0.1:8080", "localhost:8080", "[::1]:8080", "photos.internal"):
            assert (await client.get("/healthz", headers={"Host": host})).status_code == 200
        for host in ("evil.test", "127.0.0.1.evil.test", "localhost.evil.test:8080", "", "[::1"):
            answer = await client.get("/healthz", headers={"Host": host})
            problem_of(answer, 421, "unknown-host")
        for origin in ("http://evil.test", "null", "http://127.0.0.1:9999", "http://[::"):
            answer = await client.post("/v1/images", headers={"Origin": origin})
            problem_of(answer, 403, "foreign-origin")
        embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
        problem_of(await client.get("/v1/images", headers=embedded), 403, "foreign-origin")
        followed = {
            "Sec-Fetch-Site": "cross-site",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "document",
        }
        assert (await client.get("/", headers=followed)).status_code == 200
        own = {"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-origin"}
        assert (await client.get("/healthz", headers=own)).status_code == 200


async def test_with_keys_nothing_opens_without_one() -> None:
    async with asking(with_keys()) as client:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Basic {KEYS['admin']}"},
            {"Authorization": KEYS["admin"]},
            {"Authorization": b"Bearer \xff\xfe"},
        ):
            answer = await client.get("/metrics", headers=headers)  # type: ignore[arg-type]
            problem_of(answer, 401, "key-needed")
            assert answer.headers["www-authenticate"] == "Bearer"
        in_address = await client.get("/metrics", params={"key": KEYS["admin"]})
        problem_of(in_address, 401, "key-needed")
        assert (await client.get("/healthz")).status_code == 200


async def test_a_key_opens_what_its_scopes_say_and_admin_everything() -> None:
    for name, expected in (("reader", 200), ("publisher", 403), ("admin", 200)):
        async with asking(with_keys(), KEYS[name]) as client:
            answer = await client.get("/metrics")
            assert answer.status_code == expected
            if expected == 403:
                assert problem_of(answer, 403, "scope-needed")["scopes"] == ["read"]


async def test_who_has_no_key_holds_no_place_by_sending_a_body_slowly() -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    json = {"content-type": "application/json"}
    async with asking(with_keys()) as client, asyncio.timeout(60):
        answer = await client.post("/v1/sql", content=never(), headers=json)
        problem_of(answer, 401, "key-needed")
        assert answer.headers["connection"] == "close"


def test_keys_cannot_be_confined_to_feeds_whose_ids_begin_alike() -> None:
    def confined(*feeds: list[str]) -> Keys:
        keys = [
            {"name": f"k{number}", "key": str(number) * 20, "feeds": each}
            for number, each in enumerate(feeds)
        ]
        return Keys(api_settings(api={"keys": keys}).api.keys)

    for feeds in ([["a"], ["a/b"]], [["a/b"], ["a"]], [["a", "a/b"], ["a/b"]]):
        with pytest.raises(ConfigurationError, match="begin alike"):
            confined(*feeds)
    assert confined(["a"], ["ab"], ["c/d"], ["c/d"])
    assert confined(["a", "a/b"], ["a", "a/b"])


def test_an_address_beyond_this_machine_needs_keys() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(ValidationError, match="keys are needed"):
            api_settings(api={"host": host})
    assert with_keys(host="0.0.0.0").api.host == "0.0.0.0"
    assert api_settings(api={"host": "::1"}).api.host == "::1"


def test_keys_that_are_too_short_missing_or_doubled_are_refused(tmp_path: Any) -> None:
    short = {"name": "a", "key": "so-so"}
    missing = {"name": "a", "key_file": str(tmp_path / "none")}
    one, two = ({"name": name, "key": "k" * 20} for name in "ab")
    for keys, said in (
        ([short], "at least 16"),
        ([missing], "cannot be read"),
        ([one, two], "the key of another"),
    ):
        with pytest.raises(ConfigurationError, match=said) as refused:
            Keys(api_settings(api={"keys": keys}).api.keys)
        assert "so-so" not in str(refused.value)
    with pytest.raises(ValidationError, match="exactly one of"):
        api_settings(api={"keys": [{"name": "a"}]})


async def test_a_key_may_come_from_a_file(tmp_path: Any) -> None:
    (tmp_path / "key").write_text(KEYS["gate"] + "\n")
    keys = [{"name": "gate", "key_file": str(tmp_path / "key")}]
    async with asking(api_settings(api={"keys": keys}), KEYS["gate"]) as client:
        assert (await client.get("/metrics")).status_code == 200


async def test_bodies_that_are_too_large_are_refused_before_they_are_read() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65_536

    settings = api_settings(api={"max_json_bytes": 10_000, "max_upload_bytes": 50_000})
    async with asking(settings) as client:
        json = {"content-type": "application/json"}
        answer = await client.post("/v1/images", content=b"x" * 10_001, headers=json)
        assert problem_of(answer, 413, "too-large")["limit"] == 10_000
        problem_of(
            await client.post("/v1/images", content=endless(), headers=json), 413, "too-large"
        )
        for length in ("9" * 17, "²", "-1", "9" * 5000):
            odd = {"content-type": "application/json", "content-length": length}
            raw = [(name.encode(), value.encode("latin-1")) for name, value in odd.items()]
            answer = await client.post("/v1/images", content=endless(), headers=raw)
            problem_of(answer, 413, "too-large")
        form = {"content-type": "multipart/form-data; boundary=x"}
        problem_of(
            await client.post("/v1/images", content=endless(), headers=form), 413, "too-large"
        )


async def test_a_body_that_drips_ends() -> None:
    async def dripping() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.05)

    async with asking(api_settings(api={"body_timeout": 0.3})) as client:
        json = {"content-type": "application/json"}
        answer = await client.post("/v1/images", content=dripping(), headers=json)
        problem_of(answer, 408, "body-timeout")


async def test_who_asks_too_often_is_told_when_to_come_again() -> None:
    async with asking(api_settings(api={"burst": 3, "requests_per_second": 0.5})) as client:
        codes = [(await client.get("/v1/nothing")).status_code for _ in range(3)]
        assert codes == [404, 404, 404]
        answer = await client.get("/v1/nothing")
        problem_of(answer, 429, "too-many-requests")
        assert answer.headers["retry-after"] == "2"
        assert (await client.get("/healthz")).status_code == 200


def test_requests_come_back_with_time_and_one_caller_does_not_use_up_another_s() -> None:
    now = 0.0
    limit = RateLimit(10, 2, lambda: now)
    assert [limit.seconds_to_wait("a") for _ in range(3)] == [0, 0, pytest.approx(0.1)]
    assert limit.seconds_to_wait("b") == 0
    now = 0.1
    assert limit.seconds_to_wait("a") == 0
    assert limit.seconds_to_wait("a") > 0


async def test_a_defect_says_nothing_of_the_inside_and_its_id_is_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(app: FastAPI) -> None:
        @app.get("/v1/broken")
        async def _() -> None:
            raise RuntimeError("the password is 1234")

        # Before the console, which takes every other address.
        app.router.routes.insert(0, app.router.routes.pop())

    with caplog.at_level(logging.ERROR):
        async with asking(api_settings(), prepare=broken) as client:
            answer = await client.get("/v1/broken")
    problem_of(answer, 500, "internal-error")
    assert "1234" not in answer.text
    assert answer.headers["x-request-id"] in caplog.text


async def test_a_store_that_is_away_is_named_and_the_api_lives_on() -> None:
    async with asking(api_settings()) as client:
        found = await client.get("/readyz")
        assert found.status_code == 503
        assert set(found.json()["stores"].values()) == {"away"}
        answer = await client.post("/v1/images", json={"uri": "https://example.org/a.jpg"})
        assert problem_of(answer, 503, "store-away")["store"] == "Kafka"
        assert int(answer.headers["retry-after"]) > 0
        answer = await client.get("/v1/images")
        assert problem_of(answer, 503, "store-away")["store"] == "ClickHouse"
        assert (await client.get("/healthz")).json() == {"status": "ok"}


async def test_while_a_store_hangs_nobody_waits_for_the_time_outs_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "LONGEST_SECONDS", 0.2)
    released = threading.Event()
    services = Services(api_settings(api={"queries": 2}))
    async with services:
        hanging = [
            asyncio.create_task(services.asking(lambda reader: released.wait(60))) for _ in range(2)
        ]
        await asyncio.sleep(0)
        for _ in range(3):
            with pytest.raises(Problem, match="has not answered") as busy:
                await services.query("SELECT 1")
            assert busy.value.status == 503
        hanging[0].cancel()  # who goes away leaves a thread that is still busy
        with pytest.raises(Problem, match="has not answered"):
            await services.query("SELECT 1")
        released.set()
        assert await hanging[1]
        assert await services.asking(lambda reader: 7) == 7


async def test_requests_are_counted_by_route_and_not_by_address() -> None:
    async with asking(api_settings()) as client:
        await client.get("/healthz")
        await client.get("/v1/nothing/4711")
        page = (await client.get("/metrics")).text
    assert 'imagewire_api_requests_total{method="GET",route="/healthz",status="200"} 1.0' in page
    assert "4711" not in page


async def test_the_console_s_files_are_served_and_nothing_beside_them() -> None:
    async with asking(api_settings()) as client:
        page = await client.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        assert page.headers["cache-control"] == "no-cache"
        for path in ("/../settings.py", "/%2e%2e/settings.py", "/..%2fsettings.py", "/%00"):
            assert (await client.get(path)).status_code in (400, 404)


def test_making_services_needs_no_store_and_loads_no_model() -> None:
    async def make() -> None:
        async with Services(api_settings()):
            pass

    asyncio.run(make())
