"""Terms are found as lists mean them, in a time that hardly grows with the lists."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.findings import TermMatch
from operators.terms import TermLists
from operators.terms_file import Term, TermsError, read_terms
from operators.terms_matching import TermMatcher
from operators.terms_options import TermListOptions, TermsOptions


def lists(tmp_path: Path, name: str, content: str, **said: Any) -> TermsOptions:
    (tmp_path / name).write_text(content)
    listed = TermListOptions(file=tmp_path / name, **said)
    return TermsOptions(lists={"house": listed}, reload_seconds=0.01)


def found(tmp_path: Path, content: str, lines: list[str], **said: Any) -> list[tuple[str, str]]:
    """Terms that are found, and what is read in their places."""
    matcher = TermMatcher(read_terms(lists(tmp_path, "list.txt", content, **said)))
    return [(one.term, lines[one.line][one.start : one.end]) for one in matcher.match(lines)]


@pytest.mark.parametrize(
    ("line", "reads"),
    [
        *(("KILL him", "KILL"), ("k1ll", "k1ll"), ("ki11", "ki11"), ("k.i.l.l", "k.i.l.l")),
        *(("kіll", "kіll"), ("kiiiill", "kiiiill"), ("ｋｉｌｌ!", "ｋｉｌｌ")),
    ],
)
def test_a_word_is_found_however_it_is_spelt(tmp_path: Path, line: str, reads: str) -> None:
    assert found(tmp_path, "kill", [line]) == [("kill", reads)]


@pytest.mark.parametrize("line", ["skill", "kil", "killer", "bill", "as", "class"])
def test_other_words_are_left_alone(tmp_path: Path, line: str) -> None:
    assert found(tmp_path, "kill\nass\n", [line]) == []


def test_repeated_letters_count_where_a_word_needs_them(tmp_path: Path) -> None:
    assert found(tmp_path, "ass", ["as asssss"]) == [("ass", "asssss")]


def test_a_phrase_goes_over_punctuation_and_lines_and_an_exact_term_does_not(
    tmp_path: Path,
) -> None:
    lines = ["Get FREE", "-- money!", "free money"]
    assert found(tmp_path, "free money", lines) == [
        ("free money", "FREE"),
        ("free money", lines[2]),
    ]
    assert found(tmp_path, "free money", lines, kind="exact") == [("free money", "free money")]


def test_exact_terms_may_have_signs(tmp_path: Path) -> None:
    lines = ["I write C++, not C", "abc++"]
    assert found(tmp_path, "c++", lines, kind="exact") == [("c++", "C++")]


def test_languages_without_spaces_need_no_boundaries(tmp_path: Path) -> None:
    assert found(tmp_path, "免费\nฟรี", ["点击免费领取", "ของฟรีวันนี้"], language="zh") == [
        *(("免费", "免费"), ("ฟรี", "ฟรี"))
    ]
    assert found(tmp_path, "免费", ["点击免费领取"], language="de") == []


def test_a_term_of_another_script_is_found_pure_and_mixed(tmp_path: Path) -> None:
    lines = ["сука", "cука здесь", "это сука"]
    assert [reads for _, reads in found(tmp_path, "сука", lines)] == ["сука", "cука", "сука"]


def test_spelling_is_undone_as_far_as_the_list_says(tmp_path: Path) -> None:
    lines = ["KIT kit k1t"]
    assert [r for _, r in found(tmp_path, "KIT", lines)] == ["KIT", "kit", "k1t"]
    assert [r for _, r in found(tmp_path, "KIT", lines, normalise="case")] == ["KIT", "kit"]
    assert [r for _, r in found(tmp_path, "KIT", lines, normalise="none")] == ["KIT"]


def test_regular_expressions_tell_their_line(tmp_path: Path) -> None:
    lines = ["nothing", "win   500 now"]
    assert found(tmp_path, r"(?i)WIN\s+\d{3}", lines, kind="regex") == [
        (r"(?i)WIN\s+\d{3}", "win   500 now")
    ]


def test_catastrophic_expressions_take_no_time(tmp_path: Path) -> None:
    start = time.process_time()
    assert found(tmp_path, "(a+)+$b", ["a" * 50_000], kind="regex") == []
    assert time.process_time() - start < 2


def test_a_toml_list_says_what_its_terms_are(tmp_path: Path) -> None:
    options = lists(
        tmp_path,
        "scams.toml",
        'language = "de"\ncategory = "fraud/prize"\nseverity = "low"\n'
        'terms = ["gewonnen", {term = "geldgeschenk", severity = "high"}]\n',
        severity="medium",
    )
    matches = TermMatcher(read_terms(options)).match(["Sie haben GEWONNEN", "ein Geldgeschenk!"])
    assert matches == [
        TermMatch("house", "gewonnen", "de", 0, 10, 18, "fraud/prize", "low"),
        TermMatch("house", "geldgeschenk", "de", 1, 4, 16, "fraud/prize", "high"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "word\nfoo\n", "a.csv:1: unknown column 'word'"),
        ("a.csv", "term,kind\nfoo,exakt\n", "a.csv:2: kind is 'exakt'"),
        ("a.csv", "term\na,b\n", "a.csv:2: 2 cells under 1 columns"),
        ("a.csv", "term,kind\n(a,regex\n", "a.csv:2: the expression cannot be used: unclosed"),
        ("a.csv", "term,kind\n(a)\\1,regex\n", "a.csv:2: the expression cannot be used: backref"),
        ("a.csv", "term,kind\na*,regex\n", "a.csv:2: the expression 'a*' matches the empty text"),
        ("a.txt", "ok\n---\n", "a.txt:2: '---' has neither letters nor digits"),
        ("a.txt", "ok\nx\x00\n", "a.txt:2: the term has control characters"),
        ("a.toml", 'words = ["a"]', "a.toml:1: unknown key 'words'"),
        ("a.toml", 'terms = [\n"a",\n{term = "b", sort = 1}]', "a.toml:3: unknown key 'sort'"),
        ("a.toml", "terms = [", "a.toml: no TOML"),
    ],
)
def test_a_mistake_is_told_with_file_and_line(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    with pytest.raises(TermsError) as raised:
        read_terms(lists(tmp_path, name, content))
    assert message in str(raised.value)


def test_a_changed_list_is_read_again_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    options = lists(tmp_path, "list.csv", "term\nfirst\n")
    loaded = TermLists(options)
    before = loaded.version

    def wait_until(done: Any) -> None:
        end = time.monotonic() + 60
        while not done():
            assert time.monotonic() < end
            loaded.look_for_changes()
            time.sleep(0.02)

    (tmp_path / "list.csv").write_text("term\nsecond one\n")
    wait_until(lambda: loaded.match(["second one"]))
    assert loaded.match(["first"]) == []
    assert loaded.version != before
    (tmp_path / "list.csv").write_text("wort\nx\n")
    wait_until(lambda: loaded.trouble)
    assert "list.csv:1" in (loaded.trouble or "")
    assert loaded.match(["second one"])
    (tmp_path / "list.csv").write_text("")
    wait_until(lambda: "full disk" in (loaded.trouble or ""))
    assert loaded.match(["second one"])


async def test_a_list_that_changes_while_no_image_comes_is_read_all_the_same(
    tmp_path: Path,
) -> None:
    loaded = TermLists(lists(tmp_path, "list.csv", "term\nfirst\n"))
    watching = asyncio.create_task(loaded.watch())
    (tmp_path / "list.csv").write_text("term\nsecond one\n")
    async with asyncio.timeout(60):
        while not loaded.match(["second one"]):  # noqa: ASYNC110 - it is told by nobody
            await asyncio.sleep(0.02)
    watching.cancel()


def test_fifty_thousand_terms_cost_hardly_more_than_a_hundred() -> None:
    def matcher(count: int) -> TermMatcher:
        return TermMatcher(
            [
                Term("many", f"{word(n)} {word(n + 7)}", "phrase", "", True, "full", "", "", "")
                for n in range(count)
            ]
        )

    def word(number: int) -> str:
        return "".join(chr(97 + (number * 7919 // 26**place) % 26) for place in range(6))

    def seconds(matcher: TermMatcher) -> float:
        start = time.process_time()
        for number in range(500):
            matcher.match([f"read {word(number)} here", f"and {word(number + 7)} there"])
        return time.process_time() - start

    few, many = matcher(100), matcher(50_000)
    assert many.match([f"{word(49_999)} {word(50_006)}"])
    seconds(few)
    assert seconds(many) < 3 * max(seconds(few), 0.01)


@given(st.lists(st.text(st.sampled_from("asl1i! .\nсу免费ｓ\u0301"), max_size=30), max_size=4))
@settings(max_examples=150, deadline=None)
def test_places_are_true_for_any_lines(lines: list[str]) -> None:
    terms = [
        Term("made", term, kind, "", boundaries, spelling, "", "", "")
        for term, boundaries in (("ass", True), ("сус", True), ("免费", False), ("a!", True))
        for kind in ("exact", "phrase")
        for spelling in ("full", "case", "none")
        if term != "a!" or kind == "exact"
    ]
    for match in TermMatcher(terms).match(lines):  # type: ignore[arg-type]
        assert 0 <= match.start < match.end <= len(lines[match.line])
