"""What is recognised as personal data, in how many of the cases, and what is left alone."""

from __future__ import annotations

import re
import time
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.redact import Redactor
from operators.redact_options import RedactionOptions

LINES = Path(__file__).with_name("redaction_lines.txt")
"""Made lines of posters, screens and papers; «kind|text» marks what is personal, \\n a line break.
Numbers are random ones with the right check digits; addresses are public or invented."""
_MARK = re.compile(r"«(\w+)\|([^»]*)»")

LEAST_RECALL = {
    "email": 0.97,
    "card": 0.97,
    "iban": 0.97,
    "id": 0.95,
    "phone": 0.9,
    "address": 0.8,
}
LEAST_PRECISION = 0.97


@cache
def redactor() -> Redactor:
    return Redactor(RedactionOptions())


def made_set() -> list[tuple[list[str], list[tuple[str, int, int, int]]]]:
    """Raw lines, and kind, line, start and end of what is personal in them."""
    cases = []
    for marked in LINES.read_text().splitlines():
        lines, expected = [], []
        for number, line in enumerate(marked.split("\\n")):
            raw, position = "", 0
            for match in _MARK.finditer(line):
                raw += line[position : match.start()]
                expected.append((match[1], number, len(raw), len(raw) + len(match[2])))
                raw += match[2]
                position = match.end()
            lines.append(raw + line[position:])
        cases.append((lines, expected))
    return cases


def measured() -> tuple[dict[str, tuple[int, int]], int, int, list[str]]:
    """By kind, how many were taken out entirely, of how many; how many redactions, how many of them
    of what is personal; and what went wrong."""
    found: Counter[str] = Counter()
    there: Counter[str] = Counter()
    made = right = 0
    wrong = []
    for lines, expected in made_set():
        pieces = redactor().lines(lines).found
        for kind, line, start, end in expected:
            there[kind] += 1
            covered = {
                place
                for piece in pieces
                if piece.line == line
                for place in range(piece.start, piece.end)
            }
            secret = {place for place in range(start, end) if lines[line][place].isalnum()}
            # "NW" or a comma between two parts of an address tells nobody anything.
            if len(secret - covered) <= (4 if kind == "address" else 0):
                found[kind] += 1
            else:
                wrong.append(f"missed {kind}: {lines}")
        for piece in pieces:
            made += 1
            if any(
                piece.line == line and piece.start < end and start < piece.end
                for _, line, start, end in expected
            ):
                right += 1
            else:
                wrong.append(f"taken for {piece.kind}: {lines}")
    return {kind: (found[kind], there[kind]) for kind in there}, made, right, wrong


def test_personal_data_is_found_and_other_numbers_are_left_alone() -> None:
    kinds, made, right, wrong = measured()
    report = "\n".join(wrong)
    for kind, least in LEAST_RECALL.items():
        found, there = kinds[kind]
        assert found / there >= least, f"{kind}: {found} of {there}\n{report}"
    assert right / made >= LEAST_PRECISION, f"{right} of {made}\n{report}"


@pytest.mark.parametrize(
    ("country", "lines", "stored"),
    [
        ("nl", ["BSN 111222333"], ["BSN [id]"]),
        ("ch", ["AHV 756.9217.0769.85"], ["AHV [id]"]),
        ("se", ["811228-9874"], ["[id]"]),
        ("br", ["CPF 390.533.447-05"], ["CPF [id]"]),
        ("pl", ["Tel. 512 345 678"], ["Tel. [phone]"]),
    ],
)
def test_a_country_is_recognised_where_it_is_chosen(
    country: str, lines: list[str], stored: list[str]
) -> None:
    assert Redactor(RedactionOptions(countries=(country,))).lines(lines).lines == stored
    assert Redactor(RedactionOptions(countries=())).lines(lines).lines == lines


def test_only_the_kinds_that_are_chosen_are_taken_out() -> None:
    only = Redactor(RedactionOptions(kinds=frozenset({"email"})))
    assert only.lines(["a@b.de 0171 1234567"]).lines == ["[email] 0171 1234567"]


def test_full_width_and_other_digits_are_digits() -> None:
    assert redactor().lines(["４１１１ １１１１ １１１１ １１１１", "٠١٧١ ١٢٣٤٥٦٧"]).lines == [
        *("[card]", "[phone]")
    ]


@given(st.lists(st.text(st.sampled_from("0123456789 +-()./@abcDE\n«é１"), max_size=40), max_size=4))
@settings(max_examples=150, deadline=None)
def test_any_lines_keep_their_number_and_their_places_are_true(lines: list[str]) -> None:
    redacted = redactor().lines(lines)
    assert len(redacted.lines) == len(lines)
    for there in redacted.redactions:
        assert redacted.lines[there.line][there.start : there.end] == f"[{there.kind}]"


@pytest.mark.parametrize("piece", ["1 ", "a@", "12-", "Ab ", "DE", "+1(", "12 a st ", "1.a@b."])
def test_hostile_lines_cost_little(piece: str) -> None:
    def seconds(length: int) -> float:
        text = piece * (length // len(piece))
        start = time.process_time()
        redactor().lines([text])
        return time.process_time() - start

    seconds(200)
    assert seconds(8_000) < 40 * max(seconds(1_000), 0.005)
