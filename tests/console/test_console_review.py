"""The review queue in a browser: one by one, many at once, undo, and what came of it."""

from __future__ import annotations

from pages import Watched
from playwright.sync_api import Page, expect
from ten_thousand import HOSTILE


def _shown(page: Page) -> str:
    """The id of the image that is to be decided."""
    link = page.get_by_role("link", name="Everything about it")
    expect(link).to_be_visible()
    href = link.get_attribute("href")
    assert href is not None
    return href


def _shows_another(page: Page, than: str) -> str:
    expect(page.get_by_role("link", name="Everything about it")).not_to_have_attribute("href", than)
    return _shown(page)


def test_the_queue_is_worked_with_single_keys_and_the_last_decision_taken_back(
    console: Watched,
) -> None:
    page = console.open("policy")
    page.keyboard.press("g")
    page.keyboard.press("r")
    first = _shown(page)
    console.check()
    page.keyboard.press("1")
    expect(page.get_by_label("Reason", exact=True)).not_to_be_empty()
    page.keyboard.press("a")
    second = _shows_another(page, first)
    page.keyboard.press("s")
    third = _shows_another(page, second)
    assert third != first
    expect(page.get_by_label("Reason", exact=True)).to_be_empty()
    page.keyboard.press("u")
    expect(page.get_by_text("Taken back: Allow of")).to_be_visible()
    # What is to be decided is told to who does not see it, and the focus was never lost.
    expect(page.get_by_role("status").filter(has_text="To be decided")).to_be_attached()
    assert page.evaluate("document.activeElement.id") == "page"
    page.get_by_role("radio", name="One by one").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".pick input").first).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_contain_text("To another picture")
    page.keyboard.press("Escape")
    assert console.errors == []


def test_letters_in_a_reason_decide_nothing(console: Watched) -> None:
    page = console.open("review")
    first = _shown(page)
    page.keyboard.press("r")
    page.keyboard.type("a bad one")
    expect(page.get_by_label("Reason", exact=True)).to_have_value("a bad one")
    assert _shown(page) == first


def test_many_are_chosen_with_the_keyboard_decided_at_once_and_taken_back(
    console: Watched,
) -> None:
    page = console.open("review?mode=batch")
    picks = page.locator(".pick input")
    expect(picks.nth(3)).to_be_visible()
    names = [picks.nth(index).get_attribute("aria-label") for index in range(3)]
    picks.first.focus()
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    expect(page.get_by_text("3 chosen")).to_be_visible()
    console.check()
    page.keyboard.press("b")
    for name in names:
        assert name is not None
        expect(page.get_by_label(name, exact=True)).to_have_count(0)
    page.locator(".toast").get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Taken back: 3 decisions")).to_be_visible()
    assert console.errors == []


def test_what_people_decided_stands_as_agreement(console: Watched) -> None:
    page = console.open("review?mode=agreement")
    reviewers = page.get_by_role("region", name="Reviewers", exact=True)
    expect(reviewers).to_contain_text("ann")
    expect(reviewers).to_contain_text("bob")
    console.check()


def test_an_empty_queue_says_that_nothing_waits(console_of_nothing: Watched) -> None:
    page = console_of_nothing.open("review")
    expect(page.get_by_role("heading", name="Nothing waits")).to_be_visible()
    page.get_by_label("Batch", exact=True).check()
    expect(page.get_by_role("heading", name="Nothing waits")).to_be_visible()
    page.get_by_label("Agreement", exact=True).check()
    expect(page.get_by_role("heading", name="Nothing is decided yet")).to_be_visible()
    console_of_nothing.check()
    assert HOSTILE not in page.content()
