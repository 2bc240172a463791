"""One character's plain form: width, case, accents and lookalikes of other scripts undone.

Lookalikes are those of Unicode's confusables table (UTS 39), which the package
confusable-homoglyphs carries as data; it has no dependencies, and what it offers besides, answers
about whole strings, would cost a thousand times a table look-up. What the table leaves to other
rules comes from Unicode's own names: small capitals, letters in circles and squares, letters with
strokes and hooks.

A lookalike is only undone where it pretends to be a Latin letter. `word_folds` decides that: a
Cyrillic letter in a Latin word does; a Russian word does not, although each of its letters may have
a Latin twin.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from confusable_homoglyphs.confusables import confusables_data

_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Unicode's Default_Ignorable_Code_Point, and the anchors of interlinear annotations."""
_LONGEST_CLUSTER = 32
"""Marks on one letter (Unicode's stream-safe format allows 30): sorting them takes the square."""
_MARK_BLOCKS = (range(0x0300, 0x0370), range(0x1AB0, 0x1B00), range(0x1DC0, 0x1E00),
                range(0x20D0, 0x2100), range(0xFE20, 0xFE30))  # fmt: skip
"""Marks that are put over any letter. Those of Indic scripts, Thai, Arabic or kana tell words
apart and stay."""
_NAMED_LETTER = re.compile(
    r"(?:LATIN (?:SMALL|CAPITAL) LETTER|LATIN LETTER(?: SMALL CAPITAL)?|REGIONAL INDICATOR SYMBOL "
    r"LETTER|(?:NEGATIVE )?(?:CIRCLED|SQUARED) LATIN CAPITAL LETTER) ([A-Z])(?: WITH .*)?"
)
_WRITTEN_WITHOUT_LATIN = frozenset(
    {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL", "IDEOGRAPHIC", "BOPOMOFO",
     "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"}
)  # fmt: skip
"""Scripts without spaces, where Latin letters stand beside others without pretending anything."""


def has_invisible(text: str) -> bool:
    """Whether `text` holds characters that nobody sees."""
    return _INVISIBLE.search(text) is not None


def clusters(text: str) -> Iterator[tuple[str, int, int]]:
    """Each visible character of `text` with the marks on it, and where it begins and ends."""
    start, cluster = 0, ""
    for index, character in enumerate(text):
        if cluster and index - start < _LONGEST_CLUSTER and _joins(character):
            cluster += character
            continue
        if cluster:
            yield cluster, start, index
        start, cluster = index, character
    if cluster:
        yield cluster, start, len(text)


@lru_cache(16_384)
def plain(cluster: str) -> str:
    """`cluster` in full width undone, folded case, without accents; empty if nobody sees it."""
    for _ in range(4):
        folded = _plain_once(cluster)
        if folded == cluster:
            break
        cluster = folded
    return cluster


@lru_cache(16_384)
def lookalike(letter: str) -> str:
    """The Latin letter that a plain letter of another script looks like; empty if none."""
    if letter.isascii() or not letter.isalpha() or script(letter) in _WRITTEN_WITHOUT_LATIN:
        return ""
    for form in (letter, letter.upper()):
        seen = {form}
        for _ in range(3):
            targets = [entry["c"] for entry in confusables_data.get(form, ())]
            latin = [target.lower() for target in targets if target.isascii()]
            if latin:
                return latin[0] if latin[0].isalpha() and len(latin[0]) == 1 else ""
            named = [found for found in map(_named_letter, targets) if found]
            if named:
                return named[0]
            if len(targets) != 1 or targets[0] in seen:
                break
            form = targets[0]
            seen.add(form)
    return ""


@lru_cache(16_384)
def script(letter: str) -> str:
    """The script of a letter, as the first word of its Unicode name; empty if it has none."""
    return unicodedata.name(letter, "").partition(" ")[0]


@lru_cache(16_384)
def _joins(character: str) -> bool:
    # U+FF9E and U+FF9F are the half-width voicing marks of katakana.
    return (
        unicodedata.combining(character) > 0
        or character in "\uff9e\uff9f"
        or unicodedata.category(character) in ("Mn", "Me")
        or _INVISIBLE.match(character) is not None
        or "\u1161" <= character <= "\u11ff"
    )


def _plain_once(cluster: str) -> str:
    cluster = _INVISIBLE.sub("", cluster)
    if not cluster:
        return ""
    if cluster[0].isdecimal() and not cluster.isascii():
        cluster = str(unicodedata.decimal(cluster[0])) + cluster[1:]
    folded = unicodedata.normalize("NFKC", cluster).casefold()
    if folded.isascii():
        return folded
    decomposed = unicodedata.normalize("NFKD", folded)
    if script(decomposed[0]) in ("LATIN", "GREEK", "CYRILLIC") or decomposed[0].isascii():
        folded = "".join(
            c for c in decomposed if not any(ord(c) in block for block in _MARK_BLOCKS)
        )
    return "".join(_named_letter(character) or character for character in folded)


@lru_cache(4096)
def _named_letter(character: str) -> str:
    if len(character) != 1 or character.isascii():
        return ""
    match = _NAMED_LETTER.fullmatch(unicodedata.name(character, ""))
    return match[1].lower() if match else ""
