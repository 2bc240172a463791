"""Live: the wall of pictures as they are decided, and the shell around every view."""

from __future__ import annotations

import re

import pytest
from arrivals import publish, verdict
from pages import NARROW, Watched
from playwright.sync_api import expect
from ten_thousand import image_id

from imagewire.settings import Settings

_MANY_WHILE_PAUSED = """async () => {
  const { Wall } = await import("./views/live_wall.js");
  const wall = new Wall({ signal: new AbortController().signal, onchange: () => {} });
  wall.fillWith([]);
  wall.paused = true;
  for (let number = 0; number < 20000; number += 1) {
    const verdict = number % 9 ? "allow" : "block";
    wall.offer({ image_id: `image-${number}`, feed: "gate", verdict });
    if (number % 5000 === 0) wall.step();
  }
  return { kept: wall.kept, waiting: wall.waiting, tiles: wall.size };
}"""


@pytest.mark.kafka
def test_a_picture_is_on_the_wall_soon_after_its_verdict(
    console: Watched, full_settings: Settings
) -> None:
    page = console.open("live")
    expect(page.get_by_text("Following")).to_be_visible()
    expect(page.locator(".tile img").first).to_be_visible()
    publish(full_settings.kafka, [verdict(image_id(5000), "block")])
    tile = page.locator(".tile").first
    expect(tile).to_have_attribute("data-id", image_id(5000))
    # The verdict is told by a word, and why by the rule.
    expect(tile).to_contain_text("Block")
    expect(tile).to_contain_text("to-block")
    expect(tile.locator("img")).to_be_visible()
    console.check(streams=True)


@pytest.mark.kafka
def test_a_second_verdict_over_a_picture_changes_its_tile_and_adds_none(
    console: Watched, full_settings: Settings
) -> None:
    page = console.open("live")
    expect(page.get_by_text("Following")).to_be_visible()
    tile = page.locator(f'.tile[data-id="{image_id(1)}"]')
    expect(tile).to_contain_text("Allow")
    publish(full_settings.kafka, [verdict(image_id(1), "review", "uploads")])
    expect(tile).to_contain_text("Review")
    expect(tile).to_have_count(1)


@pytest.mark.kafka
def test_of_a_flood_a_sample_is_shown_and_the_page_stays_small(
    console: Watched, full_settings: Settings
) -> None:
    page = console.open("live")
    expect(page.get_by_text("Following")).to_be_visible()
    flood = [verdict(f"flood-{number}") for number in range(1500)]
    publish(full_settings.kafka, [*flood, verdict(image_id(7000), "block")])
    # What is stricter is not lost among what is not.
    expect(page.locator(f'.tile[data-id="{image_id(7000)}"]')).to_be_visible()
    expect(page.get_by_text(re.compile("a sample of .* is shown"))).to_be_visible()
    assert page.locator(".tile").count() <= 60
    assert page.evaluate("document.querySelectorAll('*').length") < 2500
    console.errors.clear()  # the flood's pictures are not stored


@pytest.mark.kafka
def test_a_paused_wall_stands_still_and_says_how_many_wait(
    console: Watched, full_settings: Settings
) -> None:
    page = console.open("live")
    expect(page.get_by_text("Following")).to_be_visible()
    page.keyboard.press("p")
    publish(full_settings.kafka, [verdict(image_id(6000)), verdict(image_id(6001))])
    expect(page.get_by_text("Paused", exact=True)).to_be_visible()
    expect(page.get_by_text("2 pictures waiting")).to_be_visible()
    assert page.locator(f'.tile[data-id="{image_id(6001)}"]').count() == 0
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(f'.tile[data-id="{image_id(6001)}"]')).to_be_visible()
    # Nor does it keep more the longer it stands still.
    assert page.evaluate(_MANY_WHILE_PAUSED) == {"kept": 24, "waiting": 20_000, "tiles": 0}


def test_the_wall_is_filtered_and_the_address_keeps_the_filter(console: Watched) -> None:
    page = console.open("live")
    page.get_by_label("Feed").select_option("market")
    page.locator(".filters").get_by_role("radio", name="Block").check()
    expect(page.locator(".tile .badge.block").first).to_be_visible()
    expect(page.locator(".tile .badge:not(.block)")).to_have_count(0)
    assert "feed=market" in page.url and "verdict=block" in page.url
    page.reload()
    expect(page.locator(".tile .badge.block").first).to_be_visible()
    assert page.get_by_label("Feed").input_value() == "market"
    page.get_by_label("Object").fill("nothing of the kind")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Nothing matches")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator(".tile").first).to_be_visible()


def test_who_points_at_a_picture_sees_what_was_found_in_it(console: Watched) -> None:
    page = console.open("live?label=FACE_FEMALE")
    tile = page.locator(".tile").first
    expect(tile.locator("img")).to_be_visible()
    tile.hover()
    expect(tile.locator(".overlay .objects .outline").first).to_be_attached()
    expect(tile.locator(".tile-labels")).to_contain_text("face female")
    expect(page.get_by_text("Held while you look")).to_be_visible()


def test_an_empty_stack_says_how_to_begin(console_of_nothing: Watched) -> None:
    page = console_of_nothing.open("live")
    expect(page.get_by_text("No images yet")).to_be_visible()
    console_of_nothing.check(streams=True)


def test_everything_is_reached_by_keyboard(console: Watched) -> None:
    page = console.open("live")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # skip to content
    assert page.evaluate("document.activeElement.id") == "page"
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    page.keyboard.press("Escape")
    page.locator("a.tile").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Nearest neighbours")).to_be_visible()
    page.keyboard.press("g")
    page.keyboard.press("l")
    expect(page.get_by_role("heading", name="Live")).to_be_visible()


def test_the_theme_is_chosen_and_kept(console: Watched) -> None:
    page = console.open("live")
    page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    switch = page.get_by_role("button", name="Theme")
    switch.click()
    switch.click()
    page.reload()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"


def test_a_store_that_does_not_answer_is_told_with_a_way_to_try_again(console: Watched) -> None:
    page = console.page
    page.route(
        "**/v1/images?*",
        lambda route: route.fulfill(
            status=503,
            headers={"X-Request-Id": "7f3a", "Retry-After": "5"},
            content_type="application/problem+json",
            body='{"type": "urn:imagewire:problem:store-unavailable", "status": 503, '
            '"title": "ClickHouse does not answer", "detail": "try again", "instance": "7f3a"}',
        ),
    )
    console.open("live")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("ClickHouse does not answer")
    expect(alert).to_contain_text("7f3a")
    page.unroute("**/v1/images?*")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".tile").first).to_be_visible()
    console.errors.clear()
