"""What people can read is what programs read, and every match has a place in the raw line."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from operators.text_normal import normal_text, normalised

TRICKS = st.text(
    st.sampled_from(list("aeilost01345789@$!|+ .-_*\u200b\u0301яросаФλ한が語ﾊﾟ①Ⓕß🅵")), max_size=40
)


@pytest.mark.parametrize(
    "spelling",
    [
        *("FREE", "ＦＲＥＥ", "fr33", "frее", "f.r.e.e", "f r e e", "F-R-E-E", "f*r*e*e"),
        *("f\u200br\u200be\u00ade", "Ⓕⓡⓔⓔ", "🅵🆁🅴🅴", "𝐟𝐫𝐞𝐞", "ꜰʀᴇᴇ", "frëé", "fгее", "freeeee"),
    ],
)
def test_every_spelling_of_a_word_is_the_word(spelling: str) -> None:
    assert normal_text(spelling) == "free"


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        (
            "Total 12.95 EUR, 3 pieces, 100kg, 5pm, 1st",
            "total 12.95 eur, 3 pieces, 100kg, 5pm, 1st",
        ),
        ("1.2.3.4 and e.g. this", "1.2.3.4 and e.g. this"),
        ("Привет, как дела", "привет, как дела"),
        ("Ελλάδα", "ελλαδα"),
        ("日本語のテキスト ภาษาไทย", "日本語のテキスト ภาษาไทย"),
        ("john@example.com", "john@example.com"),
        ("Free!", "free!"),
    ],
)
def test_what_is_no_trick_stays(text: str, normal: str) -> None:
    assert normal_text(text) == normal


def test_a_match_has_a_place_in_the_raw_line() -> None:
    raw = "Get it f.r.\u200be.e now"
    normal = normalised(raw)
    start = normal.letters.index("free")
    first, last = normal.place(start, start + 4)
    assert raw[first:last] == "f.r.\u200be.e"


@given(st.one_of(st.text(max_size=60), TRICKS))
@example("a b c.d.e.f")
@example("1$1a")
@settings(max_examples=200, deadline=None)
def test_normal_text_is_normal(text: str) -> None:
    once = normal_text(text)
    assert normal_text(once) == once


@given(st.one_of(st.text(max_size=60), TRICKS))
@settings(max_examples=150, deadline=None)
def test_every_character_knows_where_it_stood(text: str) -> None:
    normal = normalised(text)
    before = 0
    for index in range(len(normal.letters)):
        start, end = normal.place(index, index + 1)
        assert before <= start < end <= len(text)
        before = start


@pytest.mark.parametrize(
    "piece", ["f.r.e.e", "a ", "1a", "$@", "!a1", "я", "e\u0301\u0301", "a.", "@a.b"]
)
def test_the_time_grows_with_the_line_and_not_with_its_square(piece: str) -> None:
    def seconds(length: int) -> float:
        text = piece * (length // len(piece))
        took = []
        for _ in range(3):
            start = time.process_time()
            normalised(text)
            took.append(time.process_time() - start)
        return min(took)

    seconds(1_000)
    # Eight times the text: linear is 8, a square 64.
    assert seconds(40_000) < 30 * max(seconds(5_000), 0.001)
