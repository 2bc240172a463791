"""Finds the terms of all lists in what was read in a picture, in one pass for each spelling.

Aho-Corasick looks for all terms at once, so that 50 000 cost hardly more than 100. Terms that are
whole words are looked for with a space on both sides, in a text with one space between words: what
only stands inside a longer word then never comes up, and a phrase is found across punctuation and
line breaks.

In full spelling, repeated letters are drawn together on both sides and i and l are one letter;
what is found is then compared letter by letter. So `asssss` is `ass`, `as` is not, and `k1ll` is
`kill`. The package is ahocorasick-rs: it finds the same as pyahocorasick, whose places are
characters too, in three quarters of its time.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import ahocorasick_rs
from pydantic_core import SchemaValidator

from operators.findings import TermMatch
from operators.terms_file import Term
from operators.terms_options import Spelling
from operators.terms_regex import any_of, compiled
from operators.text_normal import EITHER, Normal, every_lookalike_read, normalised

_MOST_MATCHES = 200
"""Reported of one image. A page of a dictionary on a picture must not become a megabyte of
findings."""
_MOST_CANDIDATES = 5_000
_NOT_WORDS = re.compile(r"[\W_]+")
_REPEATED = re.compile(r"([^\W\d_])\1+")
_PIECES = re.compile(r"([^\W\d_])\1*|[\W_]+|.", re.DOTALL)
_ONE_LETTER = str.maketrans({"l": "i", EITHER: "i"})
_ELONGATED = 3


@dataclass(frozen=True, slots=True)
class _Piece:
    """A character of the searched text: the letter meant, how often it stands there, its place."""

    letter: str
    times: int
    start: int
    end: int


@dataclass(slots=True)
class _Text:
    """All lines of a picture in one spelling."""

    lines: list[Normal]
    joined: str
    begins: list[int]

    @classmethod
    def of(cls, lines: Iterable[str], spelling: Spelling) -> _Text:
        normal = [_spelt(line, spelling) for line in lines]
        lengths = (len(line.letters) + 1 for line in normal)
        begins = list(accumulate(lengths, initial=0))[:-1]
        return cls(normal, "\n".join([line.letters for line in normal]), begins)

    def place(self, start: int, end: int) -> tuple[int, int, int]:
        """The line in which `joined[start:end]` begins, and its place in it as it was read."""
        line = bisect_right(self.begins, start) - 1
        begin, normal = self.begins[line], self.lines[line]
        end = min(end - begin, len(normal.letters))
        return line, *normal.place(start - begin, max(end, start - begin + 1))


class _Searched:
    """The terms of one spelling."""

    def __init__(self, spelling: Spelling, terms: Sequence[Term]) -> None:
        self._full = spelling == "full"
        words: dict[str, dict[tuple[_Piece, ...], list[Term]]] = defaultdict(
            lambda: defaultdict(list)
        )
        literal: dict[str, list[Term]] = defaultdict(list)
        self._regex = [(term, compiled(term.term)) for term in terms if term.kind == "regex"]
        self._regex_any = any_of([term.term for term, _ in self._regex]) if self._regex else None
        for term in terms:
            if term.kind == "regex":
                continue
            if term.kind == "exact" and _NOT_WORDS.sub("", term.term) != term.term.replace(" ", ""):
                literal[_spelt(term.term, "none" if spelling == "none" else "case").letters].append(
                    term
                )
                continue
            for form in _forms(term.term, spelling):
                pieces = tuple(_pieces(form, self._full))
                found = self._form(form).strip()
                key = f" {found} " if term.boundaries else found
                same = words[key][_trimmed(pieces)]
                if term not in same:
                    same.append(term)
        self._words = [list(by_pieces.items()) for by_pieces in words.values()]
        self._word_search = _search(list(words))
        self._literal = list(literal.items())
        self._literal_search = _search(list(literal))

    def find(self, text: _Text, as_written: _Text | None) -> Iterable[tuple[Term, int, int, int]]:
        """Each term with the line it begins in, and its place there as it was read."""
        if self._word_search is not None:
            yield from self._find_words(text)
        if self._literal_search is not None:
            yield from self._find_literal(as_written or text)
        if self._regex and (self._regex_any is None or _occurs(self._regex_any, text.joined)):
            for term, check in self._regex:
                if _occurs(check, text.joined):
                    yield term, *_line_of(check, text)

    def _form(self, letters: str) -> str:
        if self._full:
            letters = _REPEATED.sub(r"\1", letters).translate(_ONE_LETTER)
        return _NOT_WORDS.sub(" ", letters)

    def _find_words(self, text: _Text) -> Iterable[tuple[Term, int, int, int]]:
        assert self._word_search is not None
        form = self._form(text.joined)
        # What is no word at either end is a space already.
        before = 0 if form.startswith(" ") else 1
        form = (" " if before else "") + form + ("" if form.endswith(" ") else " ")
        hits = self._word_search.find_matches_as_indexes(form, overlapping=True)
        if not hits:
            return
        pieces = _pieces(text.joined, self._full)
        for number, start, end in hits[:_MOST_CANDIDATES]:
            whole = form[start] == " "
            first, last = start - before + whole, end - before - whole
            found = pieces[max(first, 0) : last]
            for wanted, terms in self._words[number]:
                if not _same(found, wanted):
                    continue
                place = text.place(found[0].start, found[-1].end)
                between = [
                    text.joined[piece.start : piece.end] for piece in found if piece.letter == " "
                ]
                for term in terms:
                    if term.kind == "exact" and any(gap.strip(" ") for gap in between):
                        continue
                    yield term, *place

    def _find_literal(self, text: _Text) -> Iterable[tuple[Term, int, int, int]]:
        assert self._literal_search is not None
        joined = text.joined
        for number, start, end in self._literal_search.find_matches_as_indexes(
            joined, overlapping=True
        )[:_MOST_CANDIDATES]:
            literal, terms = self._literal[number]
            inside = (start > 0 and literal[0].isalnum() and joined[start - 1].isalnum()) or (
                end < len(joined) and literal[-1].isalnum() and joined[end].isalnum()
            )
            for term in terms:
                if not (inside and term.boundaries):
                    yield term, *text.place(start, end)


class TermMatcher:
    """The terms of all lists, ready to be looked for. It never changes; any thread may use it."""

    def __init__(self, terms: Sequence[Term]) -> None:
        by_spelling: dict[Spelling, list[Term]] = defaultdict(list)
        for term in terms:
            by_spelling[term.normalise].append(term)
        self.size = len(terms)
        self._searched = {
            spelling: _Searched(spelling, listed) for spelling, listed in by_spelling.items()
        }
        self._signs = any(term.kind == "exact" for term in by_spelling.get("full", ()))

    def match(self, lines: Sequence[str]) -> list[TermMatch]:
        """The terms in a picture's lines, in the order in which they are read, each place once."""
        if not lines or not self._searched:
            return []
        found: dict[TermMatch, None] = {}
        texts: dict[Spelling, _Text] = {}
        for spelling, searched in self._searched.items():
            if spelling not in texts:
                texts[spelling] = _Text.of(lines, spelling)
            as_written = _Text.of(lines, "case") if spelling == "full" and self._signs else None
            for term, line, start, end in searched.find(texts[spelling], as_written):
                match = TermMatch(
                    list=term.list,
                    term=term.term,
                    language=term.language,
                    line=line,
                    start=start,
                    end=end,
                    category=term.category,
                    severity=term.severity,
                )
                found[match] = None
                if len(found) == _MOST_MATCHES:
                    break
        return sorted(found, key=lambda match: (match.line, match.start, match.end, match.list))


def _search(keys: list[str]) -> ahocorasick_rs.AhoCorasick | None:
    return ahocorasick_rs.AhoCorasick(keys, store_patterns=False) if keys else None


def _occurs(check: SchemaValidator, text: str) -> bool:
    return check.isinstance_python(text)


def _line_of(check: SchemaValidator, text: _Text) -> tuple[int, int, int]:
    """The first line in which an expression occurs, all of it; else the line where what spans
    several begins."""
    for number, line in enumerate(text.lines):
        if line.letters and _occurs(check, line.letters):
            return text.place(text.begins[number], text.begins[number] + len(line.letters))
    last = 0
    for number, begin in enumerate(text.begins):
        if _occurs(check, text.joined[begin:]):
            last = number
    return text.place(text.begins[last], text.begins[last] + len(text.lines[last].letters))


def _spelt(line: str, spelling: Spelling) -> Normal:
    if spelling == "full":
        return normalised(line)
    if spelling == "none":
        return Normal(line)
    if line.isascii():
        return Normal(line.lower())
    letters: list[str] = []
    places: list[int] = []
    for index, character in enumerate(line):
        folded = unicodedata.normalize("NFKC", character).casefold()
        letters += folded
        places += [index] * len(folded)
    return Normal("".join(letters), places, [place + 1 for place in places])


def _forms(term: str, spelling: Spelling) -> Iterable[str]:
    """How a term may stand in a text: in its own letters, or with others in their place."""
    if spelling != "full":
        return [_spelt(term, spelling).letters]
    own = normalised(term, lookalikes=False).letters
    return dict.fromkeys([own, normalised(term).letters, every_lookalike_read(own)])


def _pieces(letters: str, draw_together: bool) -> list[_Piece]:
    pieces = []
    for match in _PIECES.finditer(letters):
        first = match[0][0]
        start, end = match.span()
        if match[1] is None:
            letter = first if first.isalnum() else " "
            pieces.append(_Piece(letter, 1, start, end))
        elif draw_together:
            pieces.append(_Piece(first, end - start, start, end))
        else:
            pieces += [_Piece(first, 1, place, place + 1) for place in range(start, end)]
    return pieces


def _trimmed(pieces: Sequence[_Piece]) -> tuple[_Piece, ...]:
    """Without the signs around; places are of no use in a term."""
    first = 1 if pieces and pieces[0].letter == " " else 0
    last = len(pieces) - (1 if pieces and pieces[-1].letter == " " else 0)
    return tuple(_Piece(piece.letter, piece.times, 0, 0) for piece in pieces[first:last])


def _same(found: Sequence[_Piece], wanted: Sequence[_Piece]) -> bool:
    """Whether the letters found are those of the term: repeated as often, or drawn out."""
    if len(found) != len(wanted) or not wanted:
        return False
    for seen, meant in zip(found, wanted, strict=True):
        if seen.letter != meant.letter and not (
            EITHER in (seen.letter, meant.letter)
            and {seen.letter, meant.letter} <= {EITHER, "i", "l"}
        ):
            return False
        if seen.times != meant.times and not (
            seen.times >= _ELONGATED and seen.times >= meant.times
        ):
            return False
    return True
