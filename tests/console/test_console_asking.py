"""Search, SQL, policy and models: each in both themes, on a desk and on a phone, full and empty."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from urllib.parse import quote

import pytest
from pages import NARROW, Watched
from playwright.sync_api import expect
from ten_thousand import HOSTILE, POLICY, image_id


def test_a_stored_image_finds_its_neighbours_with_their_distance(console: Watched) -> None:
    page = console.open(f"search?image_id={quote(image_id(48), safe='')}")
    first = page.locator(".found-one").first
    expect(first).to_contain_text("distance 0.0")
    # The search also goes on from what was found.
    assert page.locator(".found-one").count() == 48
    href = first.get_by_role("link", name="Search by").get_attribute("href")
    assert href == f"#/search?image_id={image_id(49)}"
    console.check()


def test_a_search_is_narrowed_by_feed_and_verdict_and_the_address_keeps_it(
    console: Watched,
) -> None:
    page = console.open(f"search?image_id={image_id(48)}")
    page.get_by_label("Feed").select_option("market")
    page.get_by_label("Block", exact=True).check()
    expect(page.locator(".found-one .badge.block").first).to_be_visible()
    expect(page.locator(".found-one .badge:not(.block)")).to_have_count(0)
    assert "feed=market" in page.url and "verdict=block" in page.url
    page.reload()
    expect(page.locator(".found-one .badge.block").first).to_be_visible()


def test_an_id_that_is_not_stored_is_said_to_be_none(console: Watched) -> None:
    page = console.open("search?image_id=no-such-image")
    expect(page.get_by_role("alert")).to_contain_text("no such image")
    # The browser itself notes that an answer was 404.
    console.errors.clear()


def test_words_find_the_pictures_in_which_they_were_read(console: Watched) -> None:
    page = console.open("search?mode=text&text=seville")
    expect(page.get_by_text("Read nowhere")).to_be_visible()
    page.get_by_role("searchbox", name="Words").fill("sevilla")
    page.keyboard.press("Enter")
    expect(page.locator(".found-one").first).to_be_visible()


def test_near_duplicates_of_a_span_stand_in_groups(console: Watched) -> None:
    page = console.open("search?mode=duplicates&span=1h")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_role("heading", name="2 pictures").first).to_be_visible()
    group = page.locator(".view-search .card", has=page.locator(".tile")).first
    assert group.locator(".tile").count() == 2
    console.check()


@pytest.mark.parametrize("view", ["search", "search?mode=duplicates", "sql", "policy"])
def test_a_view_with_nothing_behind_it_says_so_and_is_whole(
    console_of_nothing: Watched, view: str
) -> None:
    page = console_of_nothing.open(view)
    expect(page.locator(".state, .policy-rule").first).to_be_visible()
    console_of_nothing.check()


def test_a_statement_runs_from_the_keyboard_and_its_answer_is_table_chart_and_file(
    console: Watched, tmp_path: Path
) -> None:
    page = console.open("sql")
    editor = page.get_by_label("Statement in SQL")
    editor.fill("SELECT label, count() AS objects\nFROM detections GROUP BY label ORDER BY label")
    page.keyboard.press("Control+Enter")
    rows = page.locator(".answer-table tbody tr")
    expect(rows).to_have_count(5)
    # What a stranger called an object is text, and sorting begins with the largest number.
    expect(rows.first).to_contain_text(HOSTILE)
    page.get_by_role("button", name="objects").click()
    counts = [int(text) for text in page.locator("td.number").all_inner_texts()]
    assert counts == sorted(counts, reverse=True)
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    file = tmp_path / "answer.csv"
    download.value.save_as(file)
    with file.open(newline="") as lines:
        assert next(csv.DictReader(lines))["label"] == HOSTILE
    console.check()
    page.get_by_label("Chart", exact=True).check()
    expect(page.locator(".bars tr")).to_have_count(5)
    console.check()


def test_a_refused_statement_shows_the_stores_own_words_and_the_line(console: Watched) -> None:
    page = console.open("sql")
    page.get_by_label("Statement in SQL").fill("SELECT\n  lable\nFROM detections")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("alert")).to_contain_text("lable")


def test_the_editor_lets_the_keyboard_out(console: Watched) -> None:
    page = console.open("sql")
    editor = page.get_by_label("Statement in SQL")
    editor.fill("SELECT 1")
    page.keyboard.press("Home")
    page.keyboard.press("Tab")
    assert editor.input_value() == "  SELECT 1"
    page.keyboard.press("Control+/")
    assert editor.input_value() == "  -- SELECT 1"
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    assert editor.input_value() == "  -- SELECT 1"
    expect(page.get_by_role("button", name="Run")).to_be_focused()


def test_a_link_with_a_statement_does_not_run_it(console: Watched) -> None:
    asked: list[str] = []
    console.page.on("request", lambda request: asked.append(request.url))
    page = console.open("sql?q=SELECT%201")
    expect(page.get_by_label("Statement in SQL")).to_have_value("SELECT 1")
    page.wait_for_load_state("networkidle")
    assert not [url for url in asked if url.endswith("/v1/sql")]


def test_a_click_in_the_schema_writes_the_name(console: Watched) -> None:
    page = console.open("sql")
    page.get_by_label("Find a view or column").fill("latency_ms")
    page.get_by_role("button", name=re.compile("^latency_ms")).first.click()
    assert page.get_by_label("Statement in SQL").input_value().count("latency_ms") >= 1


def test_policy_and_models_show_what_is_in_force_and_what_is_in_shadow(console: Watched) -> None:
    page = console.open("policy")
    expect(page.get_by_role("heading", name="Rules", exact=True)).to_be_visible()
    page.locator(".policy-rule summary").first.click()
    expect(page.locator(".condition").first).to_be_visible()
    expect(page.get_by_role("region", name="Models")).to_contain_text("open-nsfw")
    # Verdicts of the images are another policy's than the one in the settings.
    page.get_by_text("decided in the last 90 days").click()
    expect(page.get_by_role("region", name="Versions that decided")).to_contain_text(POLICY)
    expect(page.get_by_role("region", name="Fired, and not of this policy")).to_contain_text(
        "text-in-picture"
    )
    console.page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    console.check()
