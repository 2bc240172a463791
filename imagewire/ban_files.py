"""Files of banned hashes: what Imagewire exports, and what others exchange.

CSV has the columns of python-threatexchange's own files (`signal_type`, `signal_str`), which
hasher-matcher-actioner's users have at hand; the names that ThreatExchange's interface gives them
(`indicator`, `type`) are understood too, as is a file without a heading whose first column is the
hash. JSON is a list of objects, JSON Lines one object a line. CSV and JSON Lines are read row by
row, so that a million rows take no more memory than one.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TextIO

import msgspec

from operators.ban_records import BannedHash, BanRecord, HashKind

Format = Literal["csv", "json", "jsonl"]
SUFFIXES: Mapping[str, Format] = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
MOST_JSON_CHARACTERS = 256 * 1024 * 1024
"""A JSON document is read as a whole."""
_MOST_ROW_CHARACTERS = 64 * 1024

CSV_COLUMNS = ("collab", "signal_type", "signal_str", "category", "tags", "added_at")
_CATEGORY = "WORTH_INVESTIGATING"
"""python-threatexchange wants one; this is what its own sample files say of every row."""

_HASH = ("signal_str", "hash", "indicator", "raw_indicator", "signal", "hash_value", "value")
_KIND = ("signal_type", "kind", "type", "indicator_type", "hash_type")
_COMMENT = ("comment", "tags", "description", "category")
_ADDED = ("added_at", "creation_time", "created_at", "timestamp")
_KINDS: Mapping[str, HashKind] = {
    "pdq": "pdq",
    "hash_pdq": "pdq",
    "imagepdq": "pdq",
    "sha256": "sha256",
    "sha-256": "sha256",
    "hash_sha256": "sha256",
}
_HEX = re.compile(r"[0-9a-fA-F]{64}")
_DECODER = msgspec.json.Decoder(BanRecord)


class BanFileError(ValueError):
    """A file or one of its rows cannot be used; the message names it and says why."""


class UnsupportedKindError(BanFileError):
    """The row holds a hash of a kind that there is no matching for, such as MD5."""


def format_of(path: Path) -> Format:
    """
    Raises:
        BanFileError: the name's ending says none.
    """
    found = SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise BanFileError(f"{path}: the format is not known; name it .csv, .json or .jsonl")
    return found


def read_rows(
    path: Path, banlist: str | None, kind: HashKind | None = None
) -> Iterator[BanRecord | BanFileError]:
    """What the rows of `path` ban, in their order; an error in the place of a row without use.

    Args:
        banlist: the list to put hashes on; `None` to go by what each row says.
        kind: of hashes in rows that do not say.

    Raises:
        BanFileError: the file as a whole cannot be read.
    """
    file_format = format_of(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows: Iterator[tuple[int, Mapping[str, Any] | BanFileError]] = (
                _csv_rows(file) if file_format == "csv" else _json_rows(file, path, file_format)
            )
            for number, row in rows:
                try:
                    if isinstance(row, BanFileError):
                        raise row
                    yield from _records(row, banlist, kind)
                except BanFileError as error:
                    yield type(error)(f"{path}, row {number}: {error}")
    except OSError as error:
        raise BanFileError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BanFileError(f"{path} is not UTF-8: {error.reason}") from error
    except csv.Error as error:
        raise BanFileError(f"{path} is no CSV: {error}") from error


def _csv_rows(file: TextIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.reader(_bounded(file), strict=True)
    first = next((row for row in reader if any(cell.strip() for cell in row)), None)
    if first is None:
        return
    start = reader.line_num
    if _HEX.fullmatch(first[0].strip()):
        # hasher-matcher-actioner's samples: hash, id, time, tags.
        columns = ["hash", "", "added_at", "comment"]
        rows: Iterator[list[str]] = itertools.chain([first], reader)
    else:
        columns = [name.strip().lower() for name in first]
        rows = reader
        start += 1
    for number, row in enumerate(rows, start):
        if any(cell.strip() for cell in row):
            yield number, dict(zip(columns, row, strict=False))


def _json_rows(
    file: TextIO, path: Path, file_format: Format
) -> Iterator[tuple[int, Mapping[str, Any] | BanFileError]]:
    if file_format == "jsonl":
        for number, line in enumerate(_bounded(file), 1):
            if not line.strip():
                continue
            try:
                yield number, _object(_decoded(line))
            except BanFileError as error:
                yield number, error
        return
    # Its size is not asked for: a pipe or a device has none, and may never end.
    text = file.read(MOST_JSON_CHARACTERS + 1)
    if len(text) > MOST_JSON_CHARACTERS:
        raise BanFileError(
            f"{path} has more than {MOST_JSON_CHARACTERS} characters, and JSON is read as a whole; "
            "use JSON Lines: jq -c '.[]' FILE.json > FILE.jsonl"
        )
    try:
        document = _decoded(text)
    except BanFileError as error:
        raise BanFileError(f"{path}: {error}") from error
    if isinstance(document, dict):
        # ThreatExchange answers with {"data": […]}; a single object is a list of one.
        document = document.get("data", [document])
    if not isinstance(document, list):
        raise BanFileError(f"{path}: a list of objects is expected")
    yield from ((number, _object(row)) for number, row in enumerate(document, 1))


def _bounded(file: TextIO) -> Iterator[str]:
    while line := file.readline(_MOST_ROW_CHARACTERS):
        if len(line) == _MOST_ROW_CHARACTERS:
            raise BanFileError(f"{file.name}: a row is longer than {_MOST_ROW_CHARACTERS}")
        yield line


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BanFileError(f"no JSON: {error}") from error


def _object(row: Any) -> Mapping[str, Any]:
    if isinstance(row, str):
        return {"hash": row}
    return row if isinstance(row, dict) else {}


def _records(
    row: Mapping[str, Any], banlist: str | None, kind: HashKind | None
) -> Iterator[BanRecord]:
    if "record" in row:
        yield _own(row, banlist)
        return
    fields = {str(name).strip().lower(): value for name, value in row.items()}
    # As hasher-matcher-actioner takes and gives signals: {"pdq": "…"}.
    by_kind = [(name, fields[name]) for name in ("pdq", "sha256") if _text(fields.get(name))]
    if not by_kind:
        by_kind = [(_kind(fields, kind), _first(fields, _HASH))]
    for found_kind, digest in by_kind:
        yield _checked(
            BannedHash,
            {
                "list": banlist or _first(fields, ("list", "collab", "bank")),
                "kind": found_kind,
                "hash": _text(digest).lower(),
                "comment": _first(fields, _COMMENT)[:500],
                "added_at": _first(fields, _ADDED)[:40],
            },
        )


def _kind(fields: Mapping[str, Any], kind: HashKind | None) -> HashKind:
    said = _first(fields, _KIND)
    if said:
        known = _KINDS.get(said.lower())
        if known is None:
            raise UnsupportedKindError(f"'{said[:40]}' is not matched; there are pdq and sha256")
        return known
    if kind is None:
        raise BanFileError(
            "the row does not say whether its hash is PDQ or SHA-256, which look alike; "
            "say so with --kind"
        )
    return kind


def _own(row: Mapping[str, Any], banlist: str | None) -> BanRecord:
    if banlist is not None:
        row = {**row, ("name" if row["record"] == "list" else "list"): banlist}
    try:
        record: BanRecord = _DECODER.decode(msgspec.json.encode(row))
    except msgspec.DecodeError as error:
        raise BanFileError(str(error)) from error
    return record


def _checked(kind: type[BannedHash], values: Mapping[str, str]) -> BannedHash:
    if not _HEX.fullmatch(values["hash"]):
        raise BanFileError(f"'{values['hash'][:80]}' is no hash of 64 hexadecimal digits")
    if not values["list"]:
        raise BanFileError("the row names no list; say which with --list")
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise BanFileError(str(error)) from error


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next((text for name in names if (text := _text(fields.get(name)))), "")


def _text(value: Any) -> str:
    if isinstance(value, list):
        value = " ".join(str(item) for item in value)
    return "" if value is None else str(value).strip()


class BanFileWriter:
    """Writes records to `file` in one of the formats, row by row."""

    def __init__(self, file: TextIO, file_format: Format) -> None:
        self._file = file
        self._format = file_format
        self._rows = 0
        if file_format == "csv":
            self._csv = csv.writer(file, lineterminator="\n")
            self._csv.writerow(CSV_COLUMNS)
        elif file_format == "json":
            file.write("[")

    def write(self, record: BanRecord) -> bool:
        """Whether the format has room for such a record: CSV knows hashes only."""
        if self._format == "csv":
            if not isinstance(record, BannedHash):
                return False
            self._csv.writerow(
                (
                    *(record.list, record.kind, record.hash, _CATEGORY),
                    *(_not_a_formula(record.comment), record.added_at),
                )
            )
        else:
            between = "" if self._format == "jsonl" or not self._rows else ","
            self._file.write(between + ("\n" if self._format == "json" else ""))
            self._file.write(msgspec.json.encode(record).decode())
            if self._format == "jsonl":
                self._file.write("\n")
        self._rows += 1
        return True

    def close(self) -> None:
        """End the document; the file itself stays open."""
        if self._format == "json":
            self._file.write("\n]\n")


def _not_a_formula(text: str) -> str:
    """Spreadsheets would run a comment that begins like a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text
