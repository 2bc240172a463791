"""Which licence a file of a Debian package is under, by the package's own copyright file.

Those files are paragraphs of patterns of source paths, and the last one that matches counts. Photos
are installed elsewhere than they were in the source, and some were encoded anew, so paths are
compared from their ends and without their suffixes.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

_PICTURES = re.compile(r"\.(jpe?g|png|webp|\*)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Paragraph:
    patterns: tuple[str, ...]
    licence: str
    holders: str


class Copyright:
    """What a copyright file in Debian's machine-readable form says."""

    def __init__(self, text: str) -> None:
        self._paragraphs = [
            _Paragraph(
                tuple(_bare(pattern) for pattern in fields["Files"].split()),
                fields.get("License", "").split("\n")[0].strip(),
                "; ".join(line.strip() for line in fields.get("Copyright", "").splitlines()),
            )
            for fields in map(_fields, re.split(r"\n\s*\n", text))
            if "Files" in fields
        ]

    def of(self, path: str) -> tuple[str, str]:
        """Licence and holders of the copyright of the installed file at `path`; empty if it is
        silent on them."""
        parts = PurePosixPath(_bare(path)).parts
        tails = ["/".join(parts[start:]) for start in range(len(parts))]
        for paragraph in reversed(self._paragraphs):
            for pattern in paragraph.patterns:
                # One folder more or less may have been lost on the way to where it is installed.
                same = pattern.count("/") <= 1 and pattern.rpartition("/")[2] == parts[-1]
                if same or any(fnmatch.fnmatchcase(tail, pattern) for tail in tails):
                    return paragraph.licence, paragraph.holders
        return "", ""


def _bare(path: str) -> str:
    return _PICTURES.sub("", path)


def _fields(paragraph: str) -> dict[str, str]:
    found: dict[str, str] = {}
    name = ""
    for line in paragraph.splitlines():
        if line[:1].isspace():
            found[name] = f"{found.get(name, '')}\n{line}"
        elif ":" in line:
            name, _, value = line.partition(":")
            found[name] = value.strip()
    return found
