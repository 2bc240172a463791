"""The console when things go wrong: hostile records, answers that are none, streams that break."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import httpx
from pages import Watched
from PIL import Image
from playwright.sync_api import Route, expect
from ten_thousand import HOSTILE, image_id

_LONG = "word " * 2000
_RIGHT_TO_LEFT = "\u202eמחיר 100 ₪ \U0001f600\u200d\U0001f525"
_PROBLEMS = [
    ("live", 503, "application/problem+json", '{"title": "ClickHouse does not answer"}'),
    ("image/any", 403, "application/problem+json", '{"title": "That is not allowed"}'),
    ("search?image_id=any", 429, "application/problem+json", '{"title": "Too many requests"}'),
    ("review", 500, "text/html", "<h1>Internal Server Error</h1>"),
    ("sql", 200, "text/html", "<h1>Please log in to the airport's network</h1>"),
    ("policy", 0, "", ""),
]
_SAID = {
    "review": "Imagewire answered 500",
    "sql": "The answer cannot be read",
    "policy": "Imagewire does not answer",
}


def _extreme(address: str) -> dict[str, Any]:
    """What is known of a stored image, with everything in it as large or odd as can be."""
    known: dict[str, Any] = httpx.get(f"{address}/v1/images/{image_id(5)}", trust_env=False).json()
    known["image"]["uri"] = "https://example.org/" + "a" * 8000
    findings = known["findings"]
    findings["image"] |= {"width": 1, "height": 10_000}
    findings["objects"] = [
        {"label": label, "score": 0.5, "box": [0, number, 1, number + 3]}
        for number, label in enumerate((_LONG, *(HOSTILE, _RIGHT_TO_LEFT) * 1500))
    ]
    quad = [[0, 0], [1, 0], [1, 9], [0, 9]]
    findings["texts"] = [
        {"text": text, "score": 0.5, "quad": quad}
        for text in (HOSTILE, _LONG, _RIGHT_TO_LEFT, "x" * 10_000)
    ]
    findings["metadata"] = {_LONG: _LONG, HOSTILE: {"a": [_RIGHT_TO_LEFT]}, "x" * 10_000: "x"}
    findings["verdict"]["rules"] = [
        {"rule": _RIGHT_TO_LEFT, "action": "block", "explanation": _LONG, "shadow": False},
        {"rule": "x" * 200, "action": HOSTILE, "explanation": HOSTILE, "shadow": True},
    ]
    return known


def test_what_is_as_large_and_odd_as_can_be_is_shown_whole_and_harmless(console: Watched) -> None:
    known = _extreme(console.address)
    line = io.BytesIO()
    Image.new("RGB", (1, 1000), (200, 40, 40)).save(line, "PNG")
    page = console.page
    page.route("**/v1/images/extreme?*", lambda route: route.fulfill(json=known))
    page.route("**/v1/images/extreme", lambda route: route.fulfill(json=known))
    page.route(
        "**/v1/images/extreme/picture?*",
        lambda route: route.fulfill(body=line.getvalue(), content_type="image/png"),
    )
    console.open("image/extreme")
    expect(page.locator(".stage img")).to_be_visible()
    assert page.locator(".stage-frame").bounding_box()["width"] > 10  # type: ignore[index]
    expect(page.get_by_text("so it is stretched here")).to_be_visible()
    expect(page.get_by_role("button", name="3,001 objects")).to_be_visible()
    assert page.evaluate("document.querySelectorAll('*').length") < 3000
    console.check()


def _answering(status: int, kind: str, body: str) -> Callable[[Route], None]:
    def answer(route: Route) -> None:
        if status:
            route.fulfill(status=status, content_type=kind, body=body)
        else:
            route.abort()

    return answer


def test_a_view_that_gets_no_good_answer_says_so_and_tries_again(console: Watched) -> None:
    page = console.page
    for view, status, kind, body in _PROBLEMS:
        page.unroute_all()
        page.route("**/v1/**", _answering(status, kind, body))
        console.open(view)
        said = json.loads(body)["title"] if "title" in body else _SAID[view]
        alert = page.get_by_role("alert").filter(has_text=said).first
        expect(alert).to_be_visible()
        page.get_by_role("button", name="Try again").first.focus()
        page.keyboard.press("Enter")
        expect(alert).to_be_visible()
        # Whoever works by keyboard is still in the view, not at the beginning of the page.
        assert page.evaluate("document.getElementById('page').contains(document.activeElement)")
    assert [error for error in console.errors if error.startswith("uncaught")] == []


def test_a_stream_that_breaks_goes_on_behind_the_last_event_and_from_now_if_that_is_refused(
    console: Watched,
) -> None:
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.headers.get("last-event-id", ""))
        if len(asked) == 1:
            record = {"image_id": image_id(7), "feed": "gate-3", "action": "block", "rules": []}
            body = f"id: 0:5\nevent: verdict\ndata: {json.dumps(record)}\n\n"
            return route.fulfill(content_type="text/event-stream", body=body)
        if len(asked) == 2:
            return route.fulfill(status=422, json={"title": "no id of an event of this stream"})
        return route.continue_()

    page = console.page
    page.route("**/v1/verdicts/stream*", answer)
    console.open("live")
    expect(page.locator(f'.tile[data-id="{image_id(7)}"]').first).to_contain_text("Block")
    expect(page.get_by_text("Following")).to_be_visible()
    for _ in range(100):
        if len(asked) >= 3:
            break
        page.wait_for_timeout(100)
    assert asked == ["", "0:5", ""]
    expect(page.get_by_text("Following")).to_be_visible()


def test_a_key_that_is_revoked_while_a_view_is_open_is_asked_for_once(
    guarded: Watched, keys: dict[str, str]
) -> None:
    page = guarded.open("live")
    dialog = page.get_by_role("dialog", name="API key")
    dialog.get_by_label("Key").fill(keys["reader"])
    page.keyboard.press("Enter")
    expect(page.locator(".tile img").first).to_be_visible()
    # It lasts as long as the tab, and is kept nowhere else.
    page.reload()
    expect(page.locator(".tile img").first).to_be_visible()
    assert page.evaluate("Object.keys(localStorage).length") == 0
    problem = {"title": "A key is needed", "detail": "this key is not known", "status": 401}
    page.route("**/v1/**", lambda route: route.fulfill(status=401, json=problem))
    page.get_by_label("Feed").select_option("market")
    expect(dialog).to_contain_text("this key is not known")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page.get_by_text("Not following")).to_be_visible()
    page.get_by_role("button", name="Try again").first.click()
    expect(page.get_by_role("alert").first).to_contain_text("A key is needed")
    expect(dialog).to_have_count(0)
    page.unroute("**/v1/**")
    page.get_by_role("button", name="Try again").first.click()
    expect(page.locator(".tile img").first).to_be_visible()
    assert keys["reader"] not in page.url
