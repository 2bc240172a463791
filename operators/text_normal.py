"""Normal text: what people read in a line, however it was spelt to get past a list of terms.

`ＦＲＥＥ`, `frее` with Cyrillic letters, `fr33`, `f.r.e.e`, `f r e e` and `freeee` are the same to
a reader. Here they become the same to a program, and every character still knows where it stood in
the line as it was read, so that a match has a place.

Latin lines that need nothing but lower case, nearly all of them, cost a few microseconds; work for
each character begins where a character is not ASCII. All steps are linear in the line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from operators.text_normal_characters import clusters, lookalike, plain, script

EITHER = "\u0131"
"""Stands in `Normal.letters` for `1`, `!` or `|` inside a word, which may be an i or an l. (The
dotless i itself is plain as i, so it is free.)"""

_SEPARATED = re.compile(
    r"(?<![^\W_])[^\W_@$](?P<separator>[ .\-_*·•~|/,])(?:[^\W_]|[@$])"
    r"(?:(?P=separator)(?:[^\W_]|[@$]))+(?![^\W_@$])"
)
"""Three or more single letters with the same character between them."""
_STAND_IN = re.compile(r"[0-9@$!|+]")
_TOKEN = re.compile(r"(?:[^\W_]|[@$!|+])+")
_DIGITS = re.compile(r"[0-9]+")
_LEET = {"0": "o", "1": EITHER, "3": "e", "4": "a", "5": "s", "7": "t", "8": "b",
         "@": "a", "$": "s", "!": EITHER, "|": EITHER, "+": "t"}  # fmt: skip
_LATIN = re.compile(r"[a-z]")
_WORD = re.compile(r"[^\W\d_]+")
_UNIT = re.compile(
    r"[0-9]+(?:st|nd|rd|th|[ap]m|[kmgt]b|[kmuc]?g|[mc]?l|[mck]?m|k?[wv]h?|[kmg]?hz|px|fps|oz|lbs?|"
    r"ft|yo|yrs?|pcs?|mins?|hrs?|usd|eur|gbp|x)"
)
_ELONGATED = re.compile(r"([^\W\d_])\1{2,}")
_PASSES = 4


@dataclass(frozen=True, slots=True)
class Normal:
    """A line in normal spelling, and where each of its characters stood.

    Attributes:
        letters: the line; `EITHER` where an i or an l is meant, repeated letters still there.
        starts: for each character of `letters`, where what it stands for begins in the raw line;
            `None` if both have the same length, character by character.
        ends: likewise, where it ends.
    """

    letters: str
    starts: Sequence[int] | None = None
    ends: Sequence[int] | None = None

    @property
    def text(self) -> str:
        """For people and rules: an i for `EITHER`, and no letter more than twice in a row."""
        text = self.letters.replace(EITHER, "i") if EITHER in self.letters else self.letters
        return _ELONGATED.sub(r"\1\1", text)

    def place(self, start: int, end: int) -> tuple[int, int]:
        """Where `letters[start:end]` stands in the raw line, as a half-open range."""
        if start >= end:
            raise ValueError(f"no characters between {start} and {end}")
        if self.starts is None or self.ends is None:
            return start, end
        return self.starts[start], self.ends[end - 1]


@lru_cache(2048)
def normalised(text: str, lookalikes: bool = True) -> Normal:
    """`text` in normal spelling. Never raises, whatever the text.

    Remembers what it was asked lately: cameras and channels show the same words for hours.

    Args:
        lookalikes: letters of other scripts that stand for Latin ones are read as those.
    """
    if text.isascii():
        letters = text.lower()
        starts: list[int] | None = None
        ends: list[int] | None = None
    else:
        letters, starts, ends = _characters(text, lookalikes)
    for _ in range(_PASSES):
        before = letters
        if _SEPARATED.search(letters) is not None:
            letters, starts, ends = _joined(letters, starts, ends)
        if _STAND_IN.search(letters) is not None:
            letters = _TOKEN.sub(_read_token, letters)
        if letters == before:
            break
    return Normal(letters, starts, ends)


@lru_cache(4096)
def normal_text(text: str) -> str:
    """`text` in normal spelling; the same again if it is normal already."""
    once = normalised(text).text
    for _ in range(_PASSES):
        again = normalised(once).text
        if again == once:
            break
        once = again
    return once


def every_lookalike_read(letters: str) -> str:
    """Normal letters with every lookalike of a Latin letter taken for one, whatever stands around
    it: how a term of another script looks once some of its letters were swapped for Latin ones."""
    if letters.isascii():
        return letters
    return "".join(lookalike(letter) or letter for letter in letters)


def _characters(text: str, lookalikes: bool) -> tuple[str, list[int], list[int]]:
    """Each character plain, lookalikes read as what they pretend to be."""
    letters: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for cluster, start, end in clusters(text):
        folded = plain(cluster)
        letters += folded
        starts += [start] * len(folded)
        ends += [end] * len(folded)
    joined = "".join(letters)
    if joined.isascii() or not lookalikes:
        return joined, starts, ends
    native = {
        script(letter)
        for letter in set(joined)
        if not letter.isascii() and letter.isalpha() and not lookalike(letter)
    }

    def read(match: re.Match[str]) -> str:
        word = match[0]
        if word.isascii():
            return word
        if not _LATIN.search(word) and {script(c) for c in word if not c.isascii()} & native:
            return word
        return every_lookalike_read(word)

    return _WORD.sub(read, joined), starts, ends


def _joined(
    letters: str, starts: list[int] | None, ends: list[int] | None
) -> tuple[str, list[int], list[int]]:
    if starts is None or ends is None:
        starts, ends = list(range(len(letters))), list(range(1, len(letters) + 1))
    kept: list[int] = []
    position = 0
    for match in _SEPARATED.finditer(letters):
        first, last = match.span()
        singles = letters[first:last:2]
        if 2 * sum(letter.isalpha() for letter in singles) <= len(singles):
            continue  # rather a version or a date
        kept += range(position, first)
        kept += range(first, last, 2)
        position = last
    kept += range(position, len(letters))
    return (
        "".join([letters[index] for index in kept]),
        [starts[index] for index in kept],
        [ends[index] for index in kept],
    )


def _read_token(match: re.Match[str]) -> str:
    """Digits and signs that stand for letters, where the token is a word and not a quantity."""
    token = match[0]
    if not _STAND_IN.search(token) or not _LATIN.search(token) or _UNIT.fullmatch(token):
        return token
    if len(token) < 3 or ("@" in token and _is_address(match)):
        return token
    core = token.strip("!|+")
    before = token[: len(token) - len(token.lstrip("!|+"))]
    after = token[len(before) + len(core) :]
    if core.startswith("@") and len(core) > 4:
        before, core = before + "@", core[1:]  # rather somebody's name than a word
    if core.endswith("@"):
        core, after = core.rstrip("@"), "@" * (len(core) - len(core.rstrip("@"))) + after
    if core[:1] == "$" and not core[1:2].isalpha():
        return token

    def digits(found: re.Match[str]) -> str:
        run = found[0]
        if len(run) > 2 or any(digit not in _LEET for digit in run):
            return run
        return "".join(_LEET[digit] for digit in run)

    core = _DIGITS.sub(digits, core)
    return before + "".join(_LEET[c] if c in "@$!|+" else c for c in core) + after


def _is_address(match: re.Match[str]) -> bool:
    """An e-mail address is no word."""
    rest = match.string[match.end() : match.end() + 2]
    return len(rest) == 2 and rest[0] in ".-_" and rest[1].isalnum()
