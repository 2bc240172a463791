"""National identity, tax and health numbers of many countries, by shape and check digits.

The check is python-stdnum's. A number whose shape is that of any other (nine digits) or whose check
one in ten passes counts only beside a word that says what it is.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_D = r"[ .\-\n]?"
_BEFORE = r"(?<![\w./-])"
_AFTER = r"(?![\w/-])"
_WORD_REACH = 40


@dataclass(frozen=True, slots=True)
class _Id:
    """Attributes:
    shape: what it looks like.
    check: module of stdnum that validates it; empty if there is no check digit.
    words: one of them has to stand near, if any are given.
    """

    shape: str
    check: str
    words: str = ""


IDS: Mapping[str, tuple[_Id, ...]] = {
    "us": (
        _Id(r"\d{3}-\d{2}-\d{4}", "us.ssn"),
        _Id(r"9\d{2}-\d{2}-\d{4}", "us.itin"),
        _Id(r"\d{3} ?\d{2} ?\d{4}", "us.ssn", r"ssn|social sec"),
    ),
    "gb": (
        _Id(r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]", ""),
        _Id(rf"\d{{3}}{_D}\d{{3}}{_D}\d{{4}}", "gb.nhs", r"nhs"),
    ),
    "de": (
        _Id(r"\d{2} \d{3} \d{3} \d{3}", "de.idnr"),
        _Id(r"\d{11}", "de.idnr", r"steuer|id-?nr|idnr|tin\b|tax"),
        _Id(r"\d{2} ?\d{6} ?[A-Z] ?\d{3}", "", r"versicherung|rvnr|sozial"),
    ),
    "at": (_Id(r"\d{4} ?\d{6}", "at.vnr", r"sv-?n|versicherung"),),
    "ch": (_Id(r"756\.?\d{4}\.?\d{4}\.?\d{2}", "ch.ssn"),),
    "fr": (
        _Id(r"[12] ?\d{2} ?\d{2} ?\d[\dAB] ?\d{3} ?\d{3} ?\d{2}", "fr.nir"),
        _Id(r"[0-3]\d ?\d{2} ?\d{3} ?\d{3} ?\d{3}", "fr.nif", r"fiscal|spi\b|nif"),
    ),
    "es": (
        _Id(r"\d{2}\.?\d{3}\.?\d{3}[ \-]?[A-Z]", "es.dni"),
        _Id(r"[XYZ][ \-]?\d{7}[ \-]?[A-Z]", "es.nie"),
    ),
    "it": (_Id(r"[A-Z]{6} ?\d{2}[A-Z]\d{2} ?[A-Z]\d{3}[A-Z]", "it.codicefiscale"),),
    "nl": (_Id(r"\d{4}[. ]?\d{2}[. ]?\d{3}", "nl.bsn", r"bsn|burgerservice|sofi"),),
    "be": (_Id(r"\d{2}\.?\d{2}\.?\d{2}[ \-]?\d{3}\.?\d{2}", "be.nn"),),
    "pl": (_Id(r"\d{11}", "pl.pesel", r"pesel"),),
    "pt": (_Id(r"\d{3} ?\d{3} ?\d{3}", "pt.nif", r"nif|contribuinte"),),
    "ie": (_Id(r"\d{7}[A-W][A-IW]?", "ie.pps"),),
    "se": (_Id(r"(?:\d{2})?\d{6}[\-+]\d{4}", "se.personnummer"),),
    "no": (_Id(r"\d{6} ?\d{5}", "no.fodselsnummer"),),
    "dk": (_Id(r"\d{6}-\d{4}", "dk.cpr"),),
    "fi": (_Id(r"\d{6}[\-+A-FU-Y]\d{3}[0-9A-Z]", "fi.hetu"),),
    "cz": (_Id(r"\d{6}/\d{3,4}", "cz.rc"),),
    "ro": (_Id(r"[1-9]\d{12}", "ro.cnp"),),
    "bg": (_Id(r"\d{10}", "bg.egn", r"егн|egn"),),
    "hr": (_Id(r"\d{11}", "hr.oib", r"oib"),),
    "tr": (_Id(r"[1-9]\d{10}", "tr.tckimlik", r"kimlik|tckn|t\.?c\.?"),),
    "il": (_Id(r"\d{9}", "il.idnr", r"ת\.?ז|id\b"),),
    "za": (_Id(r"\d{6} ?\d{4} ?\d{3}", "za.idnr"),),
    "ca": (_Id(r"\d{3}[ \-]\d{3}[ \-]\d{3}", "ca.sin", r"\bsin\b|social ins|nas\b"),),
    "au": (_Id(r"\d{3} ?\d{3} ?\d{3}", "au.tfn", r"tfn|tax file"),),
    "br": (
        _Id(r"\d{3}\.\d{3}\.\d{3}-\d{2}", "br.cpf"),
        _Id(r"\d{11}", "br.cpf", r"cpf"),
    ),
    "mx": (_Id(r"[A-Z]{4}\d{6}[HM][A-Z]{5}[A-Z0-9]\d", "mx.curp"),),
    "cl": (_Id(r"\d{1,2}\.\d{3}\.\d{3}-[\dKk]", "cl.rut"),),
    "in": (
        _Id(r"\d{4} \d{4} \d{4}", "in_.aadhaar"),
        _Id(r"[A-Z]{3}[ABCFGHLJPTK][A-Z]\d{4}[A-Z]", "in_.pan"),
    ),
    "cn": (_Id(r"\d{17}[\dXx]", "cn.ric"),),
    "kr": (_Id(r"\d{6}-\d{7}", "kr.rrn"),),
}
"""The numbers recognised, by country."""


class NationalIds:
    """Finds the national numbers of some countries."""

    def __init__(self, countries: Sequence[str]) -> None:
        self._ids = [
            (
                re.compile(_BEFORE + listed.shape + _AFTER),
                importlib.import_module(f"stdnum.{listed.check}") if listed.check else None,
                re.compile(listed.words, re.IGNORECASE) if listed.words else None,
            )
            for country in countries
            for listed in IDS.get(country, ())
        ]

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """The places of national numbers in `text`."""
        for shape, module, words in self._ids:
            for match in shape.finditer(text):
                start, end = match.span()
                near = text[max(0, start - _WORD_REACH) : start]
                if (words is None or words.search(near)) and _valid(module, match[0]):
                    yield start, end


def _valid(module: Any, number: str) -> bool:
    return module is None or bool(module.is_valid(number.replace("\n", "")))
