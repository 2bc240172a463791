"""The names that a record carries, checked; and what can be saved of them from a broken record."""

from __future__ import annotations

import unicodedata

import msgspec

from operators.frame import Origin

MAX_ID_LENGTH = 256
MAX_FEED_LENGTH = 128
MAX_REFERENCE_BYTES = 1024 * 1024
"""More than the longest fields take with every character escaped (6 bytes each). Larger values are
not parsed, since tens of megabytes of JSON would hold up every other record meanwhile."""

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of what rewrites terminals, turns text around or breaks lines."""
_JOINERS = frozenset("\u200c\u200d")
"""Zero-width joiners: part of Persian and Indic words and of many emoji, and harmless."""


class RecordError(ValueError):
    """A record cannot be taken: `reason` for machines, the message for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def first_headers(origin: Origin) -> dict[str, bytes]:
    """Header name in lower case to its first value."""
    found: dict[str, bytes] = {}
    for name, value in origin.headers:
        found.setdefault(name.lower(), value or b"")
    return found


def header_text(headers: dict[str, bytes], name: str) -> str | None:
    value = headers.get(name)
    if not value:
        return None
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError("bad-header", f"the header '{name}' is not UTF-8: {error}") from error


def checked_name(what: str, value: str | None, longest: int) -> str | None:
    if value is None:
        return None
    if len(value) > longest:
        raise RecordError("too-long", f"{what} has {len(value)} characters; at most {longest}")
    if value.isprintable():  # which leaves all of those out, and is a hundred times quicker
        return value
    for character in value:
        if unicodedata.category(character) in _INVISIBLE and character not in _JOINERS:
            raise RecordError(
                "bad-characters",
                f"{what} holds the character U+{ord(character):04X}, which controls how text is "
                "shown; use printable text only",
            )
    return value


def salvaged_names(origin: Origin) -> tuple[str | None, str | None]:
    """The id and the feed of a record that is broken otherwise, each `None` if it is not to be
    had: so its owner finds the dead letter, and the mended record makes it good."""
    fields: object = None
    if origin.value and len(origin.value) <= MAX_REFERENCE_BYTES:
        try:
            fields = msgspec.json.decode(without_mark(origin.value))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            fields = None  # no JSON, so only headers can name it
    named = fields if isinstance(fields, dict) else {}
    return (
        _usable(named.get("id"), origin, "image-id", MAX_ID_LENGTH),
        _usable(named.get("feed"), origin, "feed", MAX_FEED_LENGTH),
    )


def without_mark(value: bytes) -> bytes:
    """`value` without the byte order mark that some Windows programs put before UTF-8."""
    return value.removeprefix(b"\xef\xbb\xbf")


def _usable(field: object, origin: Origin, header: str, longest: int) -> str | None:
    try:
        text = field if isinstance(field, str) else header_text(first_headers(origin), header)
        return checked_name(header, text, longest) or None
    except RecordError:
        return None
