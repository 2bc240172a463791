"""Reads term lists from TOML, CSV and plain files, with every mistake named by file and line.

Lists are written by many hands and exported from many tools, so a file is read to its end and all
its mistakes are told at once. What cannot work is refused here, before a worker takes images.
"""

from __future__ import annotations

import csv
import io
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from operators.terms_options import (
    WITHOUT_SPACES,
    Kind,
    Severity,
    Spelling,
    TermListOptions,
    TermsOptions,
)
from operators.terms_regex import PatternError, compiled

_LARGEST_FILE = 32 * 1024 * 1024
_LONGEST_TERM = 500
_MOST_MISTAKES = 20
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "kind": get_args(Kind),
    "normalise": get_args(Spelling),
    "severity": get_args(Severity),
}
_KEYS = ("kind", "language", "boundaries", "normalise", "category", "severity")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class TermsError(Exception):
    """A term list cannot be used; the message names each file and line, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Term:
    """A term as it stands in its list, with all that is said of it.

    Attributes:
        where: `file:line`, for people.
    """

    list: str
    term: str
    kind: Kind
    language: str
    boundaries: bool
    normalise: Spelling
    category: str
    severity: Severity
    where: str


def read_terms(options: TermsOptions, base: Path | None = None) -> list[Term]:
    """The terms of all lists; one that stands in a list twice counts once.

    Args:
        base: the folder that relative names of files start from; the working folder by default.

    Raises:
        TermsError
    """
    terms: dict[tuple[str, str, str], Term] = {}
    mistakes: list[str] = []
    for name, listed in options.lists.items():
        file = listed.file if base is None else base / listed.file
        for term in _read_list(name, file, listed, mistakes):
            terms.setdefault((name, term.term, term.kind), term)
    if len(terms) > options.max_terms:
        mistakes.append(
            f"{len(terms)} terms are more than terms.max_terms = {options.max_terms}; shorten the "
            "lists or raise the limit"
        )
    if mistakes:
        shown = mistakes[:_MOST_MISTAKES]
        if len(mistakes) > len(shown):
            shown.append(f"and {len(mistakes) - len(shown)} more")
        raise TermsError("\n".join(shown))
    return list(terms.values())


def _read_list(
    name: str, file: Path, listed: TermListOptions, mistakes: list[str]
) -> Iterator[Term]:
    try:
        if file.stat().st_size > _LARGEST_FILE:
            mistakes.append(f"{file}: larger than 32 MiB; split the list")
            return
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        mistakes.append(f"{file}: list '{name}' cannot be read: {error.strerror}")
        return
    except UnicodeDecodeError as error:
        mistakes.append(f"{file}: not UTF-8 at byte {error.start}; save it as UTF-8")
        return
    given = {key: getattr(listed, key) for key in _KEYS if getattr(listed, key) is not None}
    read = {".toml": _toml_rows, ".csv": _csv_rows}.get(file.suffix.lower(), _plain_rows)
    for line, row in read(file, text, mistakes):
        where = f"{file}:{line}"
        term = _term(name, where, given | row, mistakes)
        if term is not None:
            yield term


def _plain_rows(file: Path, text: str, mistakes: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        term = line.strip()
        if term and not term.startswith("#"):
            yield number, {"term": term}


def _csv_rows(file: Path, text: str, mistakes: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        unknown = [cell for cell in header if cell not in ("term", *_KEYS)]
        if "term" not in header or unknown:
            wrong = f"unknown column '{unknown[0]}'" if unknown else "no column 'term'"
            mistakes.append(
                f"{file}:1: {wrong}; the first line names the columns: term, and any of "
                f"{', '.join(_KEYS)}"
            )
            return
        for cells in reader:
            if not any(cells):
                continue
            if len(cells) > len(header):
                mistakes.append(
                    f"{file}:{reader.line_num}: {len(cells)} cells under {len(header)} columns; "
                    "put terms that hold commas into double quotes"
                )
                continue
            row: dict[str, Any] = {
                key: cell.strip() for key, cell in zip(header, cells, strict=False) if cell.strip()
            }
            if "boundaries" in row:
                row["boundaries"] = {"true": True, "false": False}.get(row["boundaries"].lower(), 0)
            yield reader.line_num, row
    except csv.Error as error:
        mistakes.append(f"{file}:{reader.line_num}: no CSV: {error}")


def _toml_rows(file: Path, text: str, mistakes: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        mistakes.append(f"{file}: no TOML: {error}")
        return
    listed = table.pop("terms", None)
    unknown = sorted(table.keys() - set(_KEYS))
    if unknown or not isinstance(listed, list):
        wrong = f"unknown key '{unknown[0]}'" if unknown else "no list 'terms'"
        mistakes.append(f"{file}:1: {wrong}; it has terms = [...], and any of {', '.join(_KEYS)}")
        return
    place = 0
    lines = text.split("\n")
    for entry in listed:
        if not isinstance(entry, str | dict):
            mistakes.append(f"{file}: terms: {entry!r} is neither text nor a table")
            continue
        row: dict[str, Any] = {"term": entry} if isinstance(entry, str) else entry
        # tomllib tells no places: terms are looked for in the order in which they stand.
        first = str(row.get("term", "")).split("\n")[0][:40]
        place = next((n for n in range(place, len(lines)) if first in lines[n]), place)
        if strange := sorted(row.keys() - {"term", *_KEYS}):
            mistakes.append(
                f"{file}:{place + 1}: unknown key '{strange[0]}'; a term has term, and any of "
                f"{', '.join(_KEYS)}"
            )
            continue
        yield place + 1, {**table, **row}


def _term(name: str, where: str, row: Mapping[str, Any], mistakes: list[str]) -> Term | None:
    def wrong(what: str) -> None:
        mistakes.append(f"{where}: {what}")

    text = row.get("term")
    if not isinstance(text, str) or not text.strip():
        wrong("there is no term")
        return None
    if len(text) > _LONGEST_TERM or _CONTROL.search(text):
        wrong(f"the term has control characters or more than {_LONGEST_TERM} characters")
        return None
    for key, choices in _CHOICES.items():
        if row.get(key, choices[0]) not in choices:
            wrong(f"{key} is {row[key]!r}; use {', '.join(repr(choice) for choice in choices)}")
            return None
    for key in ("language", "category"):
        if not isinstance(row.get(key, ""), str):
            wrong(f"{key} is {row[key]!r}; it must be text")
            return None
    language = row.get("language", "")
    boundaries = row.get("boundaries")
    if boundaries is None:
        boundaries = language.split("-")[0].lower() not in WITHOUT_SPACES
    if not isinstance(boundaries, bool):
        wrong("boundaries must be true or false")
        return None
    kind: Kind = row.get("kind", "phrase")
    if kind == "regex":
        try:
            compiled(text)
        except PatternError as error:
            wrong(str(error))
            return None
    elif not any(character.isalnum() for character in text) and kind != "exact":
        wrong(f"'{text}' has neither letters nor digits; terms of signs need kind = 'exact'")
        return None
    spelling: Spelling = row.get("normalise", "none" if kind == "regex" else "full")
    return Term(
        *(name, text.strip() if kind != "regex" else text, kind, language, boundaries),
        *(spelling, row.get("category", ""), row.get("severity", ""), where),
    )
