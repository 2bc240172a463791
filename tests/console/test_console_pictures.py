"""Pictures that people bring to Search, and what is laid over or taken off them in Image."""

from __future__ import annotations

import io
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from pages import Watched
from PIL import Image
from playwright.sync_api import Page, Route, expect
from ten_thousand import image_id

_BRING = """([kind, name, type, numbers]) => {
  const carried = new DataTransfer();
  carried.items.add(new File([new Uint8Array(numbers)], name, { type }));
  const options = { bubbles: true, cancelable: true };
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { ...options, clipboardData: carried })
    : new DragEvent("drop", { ...options, dataTransfer: carried });
  document.body.dispatchEvent(event);
}"""

_COLOURS = """image => {
  const canvas = document.createElement("canvas");
  const [width, height] = [canvas.width = 100, canvas.height = 100];
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(image, 0, 0, width, height);
  return new Set(new Uint32Array(context.getImageData(0, 0, width, height).data.buffer)).size;
}"""


def _photo() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(3).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def _bring(page: Page, kind: str, name: str, content: bytes, mime: str = "image/png") -> None:
    page.evaluate(_BRING, [kind, name, mime, list(content)])


@pytest.fixture
def sent(console: Watched) -> list[bytes]:
    """Bodies of searches by picture. They are answered with what is near a stored image: looking
    at a picture needs a model, which the images here were not seen by."""
    bodies: list[bytes] = []

    def answer(route: Route) -> None:
        body = route.request.post_data_buffer or b""
        if b"multipart/form-data" not in route.request.headers["content-type"].encode():
            return route.continue_()
        bodies.append(body)
        headers = {**route.request.headers, "content-type": "application/json"}
        asked = f'{{"image_id": "{image_id(48)}", "limit": 48}}'
        return route.continue_(headers=headers, post_data=asked)

    console.page.route("**/v1/search", answer)
    return bodies


def test_a_picture_is_chosen_dropped_or_pasted_and_is_still_there_after_a_look_at_a_result(
    console: Watched, sent: list[bytes]
) -> None:
    photo = _photo()
    page = console.open("search")
    page.locator("input[type=file]").set_input_files(
        {"name": "mine.png", "mimeType": "image/png", "buffer": photo}
    )
    expect(page.locator(".found-one").first).to_be_visible()
    expect(page.locator(".drop")).to_contain_text("mine.png")
    _bring(page, "drop", "dropped.png", photo)
    expect(page.locator(".drop")).to_contain_text("dropped.png")
    # From another way of searching, a picture that comes is what is searched by.
    page.locator("label", has_text="Words").click()
    _bring(page, "paste", "image.png", photo)
    expect(page.locator(".drop")).to_contain_text("image.png")
    expect(page.locator(".drop img")).to_be_visible()
    expect(page.locator(".found-one").first).to_be_visible()
    assert len(sent) == 3 and all(photo in body for body in sent)
    _bring(page, "drop", "notes.txt", b"no picture", "text/plain")
    expect(page.locator(".toast")).to_contain_text("“notes.txt” is no picture")
    assert len(sent) == 3
    console.check()
    page.locator(".found-one").nth(20).scroll_into_view_if_needed()
    page.wait_for_function("() => history.state?.scroll > 0")
    there = page.evaluate("scrollY")
    page.locator(".found-one .tile").nth(20).click()
    expect(page.get_by_role("heading", name="Nearest neighbours")).to_be_visible()
    page.go_back()
    expect(page.locator(".drop")).to_contain_text("image.png")
    page.wait_for_function("there => scrollY === there", arg=there)
    page.go_forward()
    expect(page.get_by_role("heading", name="Nearest neighbours")).to_be_visible()


def test_a_heat_map_is_laid_over_the_picture_and_taken_away(console: Watched) -> None:
    asked: list[str] = []

    def explain(route: Route) -> None:
        query = parse_qs(urlsplit(route.request.url).query)
        asked.append(query.get("label", ["*"])[0])
        if asked[-1] == "nsfw":
            picture = f"{console.address}/v1/images/{image_id(5)}/picture?size=320"
            return route.continue_(url=picture)
        problem = '{"title": "No heat map can be made here", "detail": "no model", "status": 503}'
        return route.fulfill(status=503, content_type="application/problem+json", body=problem)

    console.page.route("**/explain?*", explain)
    page = console.open(f"image/{image_id(5)}")
    heat = page.get_by_label("Heat map")
    heat.select_option("nsfw")
    expect(page.get_by_text("a place counted for “nsfw”")).to_be_visible()
    heat.select_option("")
    expect(page.get_by_text("a place counted")).to_have_count(0)
    page.get_by_role("heading", name="Why").click()
    page.keyboard.press("h")
    # It cannot be made: that is told, and the picture as it was comes back.
    expect(page.locator(".toast")).to_contain_text("No heat map can be made here")
    expect(heat).to_have_value("")
    expect(page.locator(".stage img")).to_be_visible()
    assert asked == ["nsfw", "*"]


def test_only_a_key_for_reviewing_shows_what_is_hidden(
    guarded: Watched, keys: dict[str, str]
) -> None:
    page = guarded.open(f"image/{image_id(5)}")
    dialog = page.get_by_role("dialog", name="API key")
    expect(dialog.get_by_label("Key")).to_be_focused()
    page.keyboard.type(keys["reader"])
    page.keyboard.press("Enter")
    picture = page.locator(".stage img")
    expect(picture).to_be_visible()
    hidden = picture.evaluate(_COLOURS)
    page.keyboard.press("u")
    expect(page.locator(".toast")).to_contain_text("lacks the scope review")
    unblurred = page.get_by_role("button", name="Unblurred")
    expect(unblurred).to_have_attribute("aria-pressed", "false")
    expect(picture).to_be_visible()
    picture.evaluate("shown => shown.dataset.key = 'the first'")
    page.get_by_role("button", name="API key").click()
    dialog.get_by_label("Key").fill(keys["reviewer"])
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    # The page is built anew with the other key.
    expect(page.locator(".stage img:not([data-key])")).to_be_visible()
    page.keyboard.press("u")
    expect(unblurred).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".stage-frame:not(.loading)")).to_be_visible()
    # This image was blocked: without the right to review nothing can be recognised in it.
    assert picture.evaluate(_COLOURS) > 3 * hidden
