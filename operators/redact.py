"""Takes personal data out of text before it leaves the service's memory.

Rules and term lists look at what was read; nobody else does. Once they have, every line is stored
and published with `[email]` or `[phone]` where personal data stood, and the findings say of which
kind it was and where. What rules quote in their explanations goes the same way.

The lines of a picture are searched as one text, since a sign painter breaks a long number where the
sign ends.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import accumulate

import msgspec

from operators.findings import Findings, Redaction, TermMatch, TextLine, Verdict
from operators.frame import Frame
from operators.redact_addresses import Addresses
from operators.redact_ids import NationalIds
from operators.redact_numbers import PhoneNumbers, cards, emails, ibans
from operators.redact_options import PersonalKind, RedactionOptions
from operators.text_normal import normal_text

_WORTH_A_LOOK = re.compile(r"\d|@|[(\[{] ?at", re.IGNORECASE)
_TAKEN = "\x00"
_SHORTEST_QUOTE = 4
"""Characters of a removed piece that explanations are searched for; less is in any sentence."""


@dataclass(frozen=True, slots=True)
class Found:
    """A piece of personal data in one line: its kind and its place there."""

    kind: PersonalKind
    line: int
    start: int
    end: int


@dataclass(slots=True)
class Redacted:
    """Lines without personal data.

    Attributes:
        lines: with a stand-in for each piece.
        found: the pieces, with their places in the raw lines.
        redactions: the same, with the places of their stand-ins.
        removed: the pieces themselves; they must not be stored.
    """

    lines: list[str]
    found: list[Found] = field(default_factory=list)
    redactions: list[Redaction] = field(default_factory=list)
    removed: list[str] = field(default_factory=list, repr=False)


class Redactor:
    """Redacts by the settings. It holds no state of what it has seen; any thread may use it."""

    def __init__(self, options: RedactionOptions) -> None:
        self._options = options
        self._ids = NationalIds(options.countries)
        self._phones = PhoneNumbers(options.countries)
        self._addresses = Addresses(options.countries)

    def lines(self, lines: Sequence[str]) -> Redacted:
        """`lines` of one picture, without what is personal in them."""
        found = self._find(lines)
        return _without(lines, found) if found else Redacted(list(lines))

    def text(self, text: str, removed: Sequence[str] = ()) -> str:
        """Any text for people, such as an explanation or an error, without personal data.

        Args:
            removed: pieces that were taken out elsewhere and may be quoted here.
        """
        for piece in sorted(set(removed), key=len, reverse=True):
            for quoted in {piece, piece.lower(), piece.casefold(), normal_text(piece)}:
                if len(quoted) >= _SHORTEST_QUOTE:
                    text = text.replace(quoted, "[redacted]")
        if not self._options.enabled:
            return text
        lines = text.split("\n")
        return "\n".join(self.lines(lines).lines)

    def protect(self, frame: Frame) -> None:
        """Give `frame` findings that may be stored.

        They are new findings: the old stay as they are, for frames with the same picture that take
        them over and are decided by what was read.
        """
        findings = frame.findings
        if not self._options.enabled:
            return
        redacted = self.lines([line.text for line in findings.texts])
        verdict = self._verdict(findings.verdict, redacted.removed)
        if not redacted.found:
            if verdict is not findings.verdict:
                frame.findings = msgspec.structs.replace(findings, verdict=verdict)
            return
        if self._keeps_raw(frame.feed):
            frame.findings = msgspec.structs.replace(
                findings,
                verdict=verdict,
                redactions=[
                    Redaction(piece.kind, piece.line, piece.start, piece.end)
                    for piece in redacted.found
                ],
            )
            return
        frame.findings = msgspec.structs.replace(
            findings,
            verdict=verdict,
            texts=_stored_lines(findings, redacted),
            terms=[_moved(match, redacted) for match in findings.terms],
            redactions=redacted.redactions,
        )

    def _keeps_raw(self, feed: str) -> bool:
        return self._options.keep_raw_text and any(
            fnmatchcase(feed, pattern) for pattern in self._options.raw_feeds
        )

    def _verdict(self, verdict: Verdict | None, removed: Sequence[str]) -> Verdict | None:
        if verdict is None or not any(hit.explanation for hit in verdict.rules):
            return verdict
        rules = [
            hit
            if (said := self.text(hit.explanation, removed)) == hit.explanation
            else msgspec.structs.replace(hit, explanation=said)
            for hit in verdict.rules
        ]
        return verdict if rules == verdict.rules else msgspec.structs.replace(verdict, rules=rules)

    def _find(self, lines: Sequence[str]) -> list[Found]:
        text = "\n".join([line.replace("\n", " ") for line in lines])
        if not _WORTH_A_LOOK.search(text):
            return []
        text = _narrow(text)
        begins = list(accumulate((len(line) + 1 for line in lines), initial=0))
        found = []
        for kind, start, end in self._pieces(text):
            # Cut where lines end; each line says what was taken out of it.
            line = bisect_right(begins, start) - 1
            while start < end:
                stop = min(end, begins[line + 1] - 1)
                if text[start:stop].strip():
                    found.append(Found(kind, line, start - begins[line], stop - begins[line]))
                start, line = begins[line + 1], line + 1
        return sorted(found, key=lambda piece: (piece.line, piece.start))

    def _pieces(self, text: str) -> Iterator[tuple[PersonalKind, int, int]]:
        """What is found, the surest kind first; what one kind has taken no other sees."""
        finders = {
            "email": emails,
            "iban": ibans,
            "card": cards,
            "id": self._ids.find,
            "phone": self._phones.find,
            "address": self._addresses.find,
        }
        kind: PersonalKind
        for kind in ("email", "iban", "card", "id", "phone", "address"):
            if kind not in self._options.kinds:
                continue
            for start, end in list(finders[kind](text)):
                if _TAKEN in text[start:end]:
                    continue
                yield kind, start, end
                taken = "".join("\n" if c == "\n" else _TAKEN for c in text[start:end])
                text = text[:start] + taken + text[end:]


def _narrow(text: str) -> str:
    """The same text, character by character, with digits and signs of full width or of other
    scripts as ASCII writes them."""
    if text.isascii():
        return text
    narrow = []
    for character in text:
        if character.isdecimal():
            character = str(unicodedata.decimal(character))
        elif not character.isascii():
            folded = unicodedata.normalize("NFKC", character)
            if len(folded) == 1 and folded.isascii():
                character = folded
        narrow.append(character)
    return "".join(narrow)


def _without(lines: Sequence[str], found: Sequence[Found]) -> Redacted:
    redacted = Redacted(list(lines), list(found))
    kept: dict[int, list[str]] = {}
    at: dict[int, int] = {}
    length: dict[int, int] = {}
    for piece in found:
        parts = kept.setdefault(piece.line, [])
        between = lines[piece.line][at.get(piece.line, 0) : piece.start]
        stand_in = f"[{piece.kind}]"
        parts += [between, stand_in]
        start = length.get(piece.line, 0) + len(between)
        at[piece.line], length[piece.line] = piece.end, start + len(stand_in)
        redacted.redactions.append(Redaction(piece.kind, piece.line, start, start + len(stand_in)))
        redacted.removed.append(lines[piece.line][piece.start : piece.end])
    for line, parts in kept.items():
        redacted.lines[line] = "".join(parts) + lines[line][at[line] :]
    return redacted


def _stored_lines(findings: Findings, redacted: Redacted) -> list[TextLine]:
    return [
        line
        if line.text == stored
        else msgspec.structs.replace(
            line, text=stored, normal=normal_text(stored) if line.normal else ""
        )
        for line, stored in zip(findings.texts, redacted.lines, strict=True)
    ]


def _moved(match: TermMatch, redacted: Redacted) -> TermMatch:
    """The match with its place in the line as it is stored."""
    pieces = [
        (raw, stored)
        for raw, stored in zip(redacted.found, redacted.redactions, strict=True)
        if raw.line == match.line
    ]
    if not pieces or match.end == 0:
        return match

    def moved(place: int, ends: bool) -> int:
        shift = 0
        for raw, stored in pieces:
            if place >= raw.end:
                shift = stored.end - raw.end
            elif place > raw.start:
                return stored.end if ends else stored.start
        return place + shift

    return msgspec.structs.replace(
        match, start=moved(match.start, False), end=moved(match.end, True)
    )
