"""Image: all that is known of one, beside the picture."""

from __future__ import annotations

from urllib.parse import quote

from pages import Watched
from playwright.sync_api import expect
from ten_thousand import HOSTILE, image_id


def test_an_image_is_shown_with_everything_known_of_it(console: Watched) -> None:
    page = console.open(f"image/{quote(image_id(0), safe='')}")
    expect(page.locator(".stage img")).to_be_visible()
    expect(page.get_by_role("heading", name="Why")).to_be_visible()
    # What strangers sent is text.
    expect(page.locator(".rule").first).to_contain_text(HOSTILE)
    expect(page.get_by_role("heading", name=HOSTILE)).to_be_visible()
    expect(page.locator(".facts").filter(has_text="shop")).to_contain_text(HOSTILE)
    expect(page.locator(".strip .tile").first).to_be_visible()
    expect(page.locator(".history")).to_contain_text("by the policy")
    page.get_by_text("JSON", exact=True).click()
    expect(page.locator(".json pre")).to_contain_text('"content_id"')
    console.check()


def test_boxes_are_switched_and_lit_from_the_list(console: Watched) -> None:
    page = console.open(f"image/{image_id(5)}")
    boxes = page.locator(".stage .overlay .objects .outline")
    expect(boxes.first).to_be_attached()
    page.locator(".found li").first.hover()
    expect(page.locator(".stage .outline.lit")).to_have_count(1)
    page.keyboard.press("o")
    expect(boxes).to_have_count(0)
    assert "hide=objects" in page.url
    page.reload()
    expect(page.locator(".stage img")).to_be_visible()
    expect(boxes).to_have_count(0)


def test_an_unknown_image_is_told_with_the_requests_id(console: Watched) -> None:
    page = console.open("image/no-such-image")
    expect(page.get_by_role("alert")).to_contain_text("There is no such image")
    expect(page.locator(".request code")).to_be_visible()


def test_a_decision_of_a_person_stands_in_the_history(console: Watched) -> None:
    page = console.open(f"image/{image_id(9600)}")
    expect(page.locator(".history")).to_contain_text("Block")
    expect(page.locator(".history")).to_contain_text(HOSTILE)
    expect(page.locator(".history li")).to_have_count(2)
