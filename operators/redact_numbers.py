"""E-mail addresses, IBANs, payment cards and phone numbers in text that was read in a picture.

What is found by shape is checked by those who know the numbers: python-stdnum the check digits,
phonenumbers which numbers a country gives out. A shop's picture is full of other numbers, prices,
dates, ISBNs and opening hours, so a phone number without a country code needs more than being
possible: a word such as "call" before it, or the grouping that its country writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import phonenumbers
from stdnum import iban, isbn, luhn

_AT = re.compile(r" ?(?:@|[(\[{] ?at ?[)\]}]) ?\n?", re.IGNORECASE)
_LOCAL = re.compile(r"[\w.%+\-']{1,64}\Z")
_DOMAIN = re.compile(
    r"(?:[^\W_][\w\-]{0,62}(?:\.\n?| ?[(\[{] ?dot ?[)\]}] ?)){1,5}[^\W\d_]{2,24}(?![\w])",
    re.IGNORECASE,
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[ ]?\d{2}(?:[ \-\n]?[A-Za-z0-9]){11,30}")
_IBAN_LENGTHS = range(34, 14, -1)
_DIGIT_CHAIN = re.compile(r"(?<![\d\w])\d+(?:[ \-.\n]\d+)*(?![\w])")
_CARD_NETWORKS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|"
    r"3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|"
    r"62\d{14,17}|(?:50|5[6-9]|6\d)\d{14,17}"
)
_CARD_GROUPS = re.compile(r"(?:4 )+[1-4]|4 6 [45]|1[2-9]")
_PHONE = re.compile(
    r"(?<![\w.,/+$€£#])(?:\+ ?|\(\+?)?\d(?:[ ()./\-\n\u2011-\u2014]{0,3}\d){5,17}(?![\w%€$£])"
)
_CALL = re.compile(
    r"(?:tel|phone|fon|call|dial|mobile|mobil|handy|cell|whats ?app|signal|sms|text(?: me)?|fax|"
    r"hotline|anruf\w*|ruf\w*|kontakt|contact|number|nummer|appel\w*|téléphone|portable|ll[aá]m\w*|"
    r"m[oó]vil|telefono|chiama\w*|cellulare|ring)\b[^\d\n]{0,15}\n?$|[☎📞📱☏✆]\W{0,3}$",
    re.IGNORECASE,
)
_DATE = re.compile(r"\d{1,4}([./\- ])\d{1,2}\1\d{1,4}")
_TIMES = re.compile(r"\d{1,2}[.:]\d{2} ?[\-–—/] ?\d{1,2}[.:]\d{2}")
_OTHER = re.compile(r"0[.]\d+|\d{5}-\d{4}")
"""Decimals, and postcodes of the United States."""
_NOT_A_PHONE = re.compile(
    r"(?:isbn|issn|ean|upc|sku|art(?:ikel)?|ref|order|bestell\w*|rechnung|invoice|no|nr|id|#|plz|"
    r"total|summe|price|preis|model|serial|s/n|v|version)[\-. ]{0,2}(?:1[03])?[:.\- ]{0,3}$",
    re.IGNORECASE,
)
_US_GROUPS = re.compile(r"\(\d{3}\) ?\d{3}[\-. ]\d{4}|1?[\-. ]?\d{3}([\-. ])\d{3}\1\d{4}")
_ALSO_WRITTEN = {
    "ES": ((3, 3, 3), (3, 2, 2, 2)),
    "IT": ((3, 7), (3, 3, 4)),
    "PL": ((3, 3, 3),),
    "PT": ((3, 3, 3),),
}
"""Groupings in use beside the one that phonenumbers knows, by country."""
_LENGTHS = {"US": (10, 11), "CA": (10, 11), "ES": (9,), "FR": (10,)}
"""How many digits numbers have where it is always the same; asking phonenumbers takes longer."""
_DIGITS = re.compile(r"\d+")
_BEFORE = 30
_MOST_IN_CHAIN = 64


def emails(text: str) -> Iterator[tuple[int, int]]:
    """The places of e-mail addresses, `a (at) b (dot) c` included."""
    for at in _AT.finditer(text):
        local = _LOCAL.search(text, max(0, at.start() - 64), at.start())
        domain = _DOMAIN.match(text, at.end())
        if local is not None and domain is not None:
            yield local.start(), domain.end()


def ibans(text: str) -> Iterator[tuple[int, int]]:
    """The places of bank account numbers whose check digits are right."""
    for match in _IBAN.finditer(text):
        places = [match.start() + i for i, c in enumerate(match[0]) if c.isalnum()]
        compact = "".join(text[place] for place in places).upper()
        for length in _IBAN_LENGTHS:
            if length <= len(compact) and iban.is_valid(compact[:length]):
                yield match.start(), places[length - 1] + 1
                break


def cards(text: str) -> Iterator[tuple[int, int]]:
    """The places of payment cards: a network's prefix and length, its grouping, Luhn's digit."""
    for chain in _DIGIT_CHAIN.finditer(text):
        groups = [
            (chain.start() + m.start(), chain.start() + m.end()) for m in _DIGITS.finditer(chain[0])
        ][:_MOST_IN_CHAIN]
        first = 0
        while first < len(groups):
            last = _card_from(text, groups, first)
            if last is None:
                first += 1
                continue
            yield groups[first][0], groups[last][1]
            first = last + 1


def _card_from(text: str, groups: Sequence[tuple[int, int]], first: int) -> int | None:
    number, longest = "", None
    for last in range(first, len(groups)):
        number += text[slice(*groups[last])]
        if len(number) > 19:
            break
        if len(number) < 12 or not _CARD_NETWORKS.fullmatch(number):
            continue
        if _grouped_like_a_card(text, groups[first : last + 1]) and luhn.is_valid(number):
            longest = last
    return longest


def _grouped_like_a_card(text: str, groups: Sequence[tuple[int, int]]) -> bool:
    """A line break may fall anywhere in a card's number."""
    lengths: list[int] = []
    broken = False
    for number, (start, end) in enumerate(groups):
        if number and text[groups[number - 1][1] : start] == "\n":
            broken = True
            if lengths[-1] != 4:
                lengths[-1] += end - start
                continue
        lengths.append(end - start)
    shape = " ".join(str(length) for length in lengths)
    return _CARD_GROUPS.fullmatch(shape) is not None or (broken and len(groups) == 2)


class PhoneNumbers:
    """Finds phone numbers: any with its country's code, and those of some countries without."""

    def __init__(self, countries: Sequence[str]) -> None:
        self._regions = [country.upper() for country in countries]

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """The places of phone numbers in `text`."""
        for match in _PHONE.finditer(text):
            yield from self._in(text, match.start(), match.end())

    def _in(self, text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        found = text[start:end]
        before = text[max(0, start - _BEFORE) : start]
        if self._is_phone(found.replace("\n", " "), before, whole="\n" not in found):
            yield start, end
        elif "\n" in found:
            # Numbers under one another, rather than one that was split.
            place = start
            for part in found.split("\n"):
                stripped = part.strip(" ()./-")
                if len(stripped) >= 6:
                    at = text.index(stripped, place)
                    at -= 1 if text[at - 1 : at] == "(" else 0
                    ending = place + len(part)
                    yield from self._in(text, at, min(ending, end))
                place += len(part) + 1

    def _is_phone(self, found: str, before: str, *, whole: bool) -> bool:
        digits = "".join(_DIGITS.findall(found))
        if not 7 <= len(digits) <= 17 or len(set(digits)) < 3:
            return False
        if any(shape.fullmatch(found) for shape in (_DATE, _TIMES, _OTHER)) or _NOT_A_PHONE.search(
            before
        ):
            return False
        if found.startswith(("+", "(+")) or (digits.startswith("00") and len(digits) > 9):
            return _valid("+" + digits.removeprefix("00"), None)
        asked = _CALL.search(before) is not None
        if not whole and not asked and digits[0] != "0":
            return False
        if _looks_like_amounts(found) and not asked:
            return False
        if found.count("-") == 3 and isbn.is_valid(digits) and not asked:
            return False
        return any(
            len(digits) in _LENGTHS.get(region, (len(digits),))
            and _valid(digits, region)
            and (asked or _written_so(found, digits, region))
            for region in self._regions
        )


def _valid(digits: str, region: str | None) -> bool:
    try:
        number = phonenumbers.parse(digits, region)
    except phonenumbers.NumberParseException:
        return False
    if region is None:
        return bool(phonenumbers.is_valid_number(number))
    return bool(phonenumbers.is_valid_number_for_region(number, region))


def _written_so(found: str, digits: str, region: str) -> bool:
    """Whether a number that nobody calls one is written as phone numbers of its country are."""
    if region in ("US", "CA"):
        return _US_GROUPS.fullmatch(found) is not None
    groups = _DIGITS.findall(found)
    if digits.startswith("0"):
        # With the zero that is dialled inside the country. Plain digits need be as many as mobile
        # phones have; a long row of short groups is rather a table.
        if len(groups) == 1:
            return len(digits) in (10, 11)
        return 9 <= len(digits) <= 12 and len(groups) <= 6
    if tuple(map(len, groups)) in _ALSO_WRITTEN.get(region, ()):
        return True
    formatted = phonenumbers.format_number(
        phonenumbers.parse(digits, region), phonenumbers.PhoneNumberFormat.NATIONAL
    )
    return len(groups) > 2 and groups == _DIGITS.findall(formatted)


def _looks_like_amounts(found: str) -> bool:
    """`08.00 - 18.00`, `0.50 1.20 2.30`: a point with two digits behind it, again and again, but
    not pairs of digits throughout."""
    if re.fullmatch(r"\d{2}(?:\.\d{2}){3,5}", found):
        return False
    parts = re.findall(r"\d+[.]\d{2}(?!\d)", found)
    return len(parts) > 1 and all(len(part) <= 6 for part in parts)
