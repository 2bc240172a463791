"""Postal addresses as far as patterns go: street and number, or postcode and place.

No offline library parses addresses of many countries from a line without a model of a gigabyte. So
these are the written conventions of the countries named, and what does not follow them is not
recognised: docs/moderation/privacy-text.md states how much is found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

_NAME = r"[^\W\d_][\w'’.\-]{0,30}"
_NAMES = rf"{_NAME}(?: {_NAME}){{0,3}}"
_NO = r"\d{1,4}(?: ?[a-zA-Z])?(?:[\-/–]\d{1,4}[a-zA-Z]?)?(?!\d|[.,]\d|\w)"
_GAP = r"(?:, ?|\n| |,\n)"
_US_STREET = (
    r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Drive|Dr|Lane|Ln|Court|Ct|Place|Pl|Square|Sq|"
    r"Terrace|Ter|Highway|Hwy|Parkway|Pkwy|Circle|Cir|Way|Close|Crescent|Gardens|Mews|Row|Hill|Grove|Green|Loop|Walk|Vale)"
)
_UNIT = r"(?:,? (?:Apt|Apartment|Suite|Ste|Unit|Floor|Fl|#)\.? ?#?\w{1,6})?"
_STATE = (
    r"(?-i:AL|AK|AZ|AR|CA|CO|CT|DE|DC|FL|GA|HI|ID|IL|IN|IA|KS|KY|LA|ME|MD|MA|MI|MN|MS|MO|MT|NE|NV|"
    r"NH|NJ|NM|NY|NC|ND|OH|OK|OR|PA|RI|SC|SD|TN|TX|UT|VT|VA|WA|WV|WI|WY)\b"
)
_US = (
    rf"\b\d{{1,5}}[a-zA-Z]? (?:[NSEW]\.? )?(?:{_NAMES}|\d{{1,3}}(?:st|nd|rd|th)) {_US_STREET}\b\.?"
    rf"{_UNIT}(?:{_GAP}{_NAMES}{_GAP}{_STATE}(?: \d{{5}}(?:-\d{{4}})?)?)?"
)
_US_PLACE = rf"\b{_NAMES}, {_STATE} \d{{5}}(?:-\d{{4}})?\b"
_US_BOX = r"\bP\.? ?O\.? Box \d{1,6}\b"
_UK_AREA = (
    r"(?:AB|AL|B|BA|BB|BD|BH|BL|BN|BR|BS|BT|CA|CB|CF|CH|CM|CO|CR|CT|CV|CW|DA|DD|DE|DG|DH|DL|DN|DT|"
    r"DY|E|EC|EH|EN|EX|FK|FY|G|GL|GU|HA|HD|HG|HP|HR|HS|HU|HX|IG|IP|IV|KA|KT|KW|KY|L|LA|LD|LE|LL|LN|"
    r"LS|LU|M|ME|MK|ML|N|NE|NG|NN|NP|NR|NW|OL|OX|PA|PE|PH|PL|PO|PR|RG|RH|RM|S|SA|SE|SG|SK|SL|SM|SN|"
    r"SO|SP|SR|SS|ST|SW|SY|TA|TD|TF|TN|TQ|TR|TS|TW|UB|W|WA|WC|WD|WF|WN|WR|WS|WV|YO|ZE)"
)
_UK_CODE = rf"{_UK_AREA}\d[A-Z\d]? ?\d[ABD-HJLNP-UW-Z]{{2}}\b"
_GB = (
    rf"\b\d{{1,4}}[a-zA-Z]? {_NAMES} {_US_STREET}\b\.?"
    rf"(?:(?:{_GAP}{_NAMES}){{0,2}}{_GAP}{_UK_CODE})?"
)
_DE_STREET = (
    r"(?:[A-ZÄÖÜ][\wäöüß.\-]{1,30}(?:straße|strasse|str\.|weg|allee|gasse|platz|ufer|damm|ring|"
    r"chaussee|steig|graben|markt)|"
    r"(?:[A-ZÄÖÜ][\wäöüß.\-]{1,30}[ \-]){1,3}(?:Straße|Strasse|Str\.|Weg|Allee|Gasse|Platz|Ufer|"
    r"Damm|Ring|Chaussee|Markt)|"
    r"(?:Am|An der|An dem|Auf der|Im|In der|Unter den|Zum|Zur) [A-ZÄÖÜ][\wäöüß\-]{2,30})"
)
_DE = rf"\b{_DE_STREET} ?{_NO}(?:{_GAP}(?:[DAC]H?-)?\d{{4,5}} {_NAMES})?"
_DE_PLACE = (
    r"\b(?:D-)?\d{5} [A-ZÄÖÜ][a-zäöüß]{2,30}(?: (?:am|an der|im) [A-ZÄÖÜ][a-zäöüß]{2,20})?\b"
)
_FR = (
    rf"\b\d{{1,4}}(?: ?(?:bis|ter|quater))?,? (?:rue|avenue|av\.|boulevard|bd\.?|place|chemin|"
    rf"impasse|allée|quai|cours|route|square) (?:d['’]|de la |de l['’]|du |des |de )?{_NAMES}"
    rf"(?:{_GAP}\d{{5}} {_NAMES})?"
)
_ES = (
    rf"\b(?:C/|Calle|Avenida|Avda\.?|Plaza|Paseo|Carrer|Ronda|Camino) (?:de la |de los |de |del )?"
    rf"{_NAMES},? ?(?:n[º°.]? ?)?{_NO}(?:{_GAP}\d{{5}} {_NAMES})?"
)
_IT = (
    rf"\b(?:Via|Viale|Piazza|Corso|Largo|Vicolo|Strada|Piazzale) {_NAMES},? ?(?:n\. ?)?{_NO}"
    rf"(?:{_GAP}\d{{5}} {_NAMES}(?: \([A-Z]{{2}}\))?)?"
)
_NL = (
    rf"\b[A-Z][\w\-]{{1,30}}(?:straat|laan|weg|plein|gracht|kade|singel|dijk) {_NO}"
    rf"(?:{_GAP}\d{{4}} ?[A-Z]{{2}}(?: {_NAMES})?)?"
)
_NL_PLACE = r"\b[1-9]\d{3} [A-Z]{2} [A-Z][a-z]{2,20}\b"

_IGNORE = re.IGNORECASE
ADDRESSES: Mapping[str, tuple[tuple[str, int], ...]] = {
    "us": ((_US, _IGNORE), (_US_PLACE, 0), (_US_BOX, _IGNORE)),
    "ca": ((_US, _IGNORE),),
    "au": ((_US, _IGNORE),),
    "gb": ((_GB, _IGNORE), (rf"\b{_UK_CODE}", 0)),
    "ie": ((_GB, _IGNORE),),
    "de": ((_DE, 0), (_DE_PLACE, 0)),
    "at": ((_DE, 0),),
    "ch": ((_DE, 0),),
    "fr": ((_FR, _IGNORE),),
    "be": ((_FR, _IGNORE), (_NL, 0)),
    "es": ((_ES, _IGNORE),),
    "it": ((_IT, _IGNORE),),
    "nl": ((_NL, 0), (_NL_PLACE, 0)),
}
"""Patterns by country. All their repeats are bounded, and so is their time for each place."""


class Addresses:
    """Finds postal addresses written as some countries write them."""

    def __init__(self, countries: Sequence[str]) -> None:
        listed = [pattern for country in countries for pattern in ADDRESSES.get(country, ())]
        self._patterns = [re.compile(*pattern) for pattern in dict.fromkeys(listed)]

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """The places of addresses in `text`; parts that touch are one."""
        merged: list[tuple[int, int]] = []
        for start, end in sorted(self._parts(text)):
            if merged and not text[merged[-1][1] : start].strip(" ,\n"):
                merged[-1] = merged[-1][0], max(end, merged[-1][1])
            else:
                merged.append((start, end))
        yield from merged

    def _parts(self, text: str) -> Iterator[tuple[int, int]]:
        for pattern in self._patterns:
            for match in pattern.finditer(text):
                yield match.span()
