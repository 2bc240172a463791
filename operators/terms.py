"""Term lists in force: read at the start, read again when a file changes, never half a list.

A list is read and prepared beside the work, in a thread of its own, and taken into use between two
batches. One that has a mistake then changes nothing: the lists in force stay, and the log and
`trouble` say what is wrong.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from operators.findings import TermMatch
from operators.terms_file import Term, TermsError, read_terms
from operators.terms_matching import TermMatcher
from operators.terms_options import TermsOptions

_logger = logging.getLogger(__name__)

__all__ = ["TermLists", "TermsError"]


class TermLists:
    """The terms of all lists in the settings. `match` and `look_for_changes` may be called from any
    thread.

    Raises:
        TermsError: a list cannot be used.
    """

    def __init__(self, options: TermsOptions, base: Path | None = None) -> None:
        self._options = options
        self._base = base
        self._files = [
            listed.file if base is None else base / listed.file for listed in options.lists.values()
        ]
        self._lock = threading.Lock()
        self._seen = self._stamps()
        self._looked = time.monotonic()
        self._reading: threading.Thread | None = None
        self.trouble: str | None = None
        """What is wrong with a file that was changed; `None` while what is in force is what the
        files say."""
        terms = read_terms(options, base)
        self._matcher, self.version = TermMatcher(terms), _version(terms)

    def __len__(self) -> int:
        return self._matcher.size

    def match(self, lines: Sequence[str]) -> list[TermMatch]:
        """The terms in the lines of a picture; places are those of the raw lines."""
        return self._matcher.match(lines)

    def look_for_changes(self) -> None:
        """Read the lists again if a file changed; returns at once. Cheap enough for every batch:
        files are looked at every `reload_seconds`."""
        every = self._options.reload_seconds
        now = time.monotonic()
        if not every or not self._files or now - self._looked < every:
            return
        with self._lock:
            self._looked = now
            if self._reading is not None and self._reading.is_alive():
                return
            stamps = self._stamps()
            if stamps == self._seen:
                return
            self._seen = stamps
            self._reading = threading.Thread(target=self._read_again, name="terms", daemon=True)
            self._reading.start()

    async def watch(self) -> None:
        """Look for changes until cancelled. Beside the looks between batches: a feed may be silent
        for hours, and its next image should meet the lists as they are by then."""
        every = self._options.reload_seconds
        while every and self._files:
            await asyncio.sleep(every)
            await asyncio.to_thread(self.look_for_changes)

    def _read_again(self) -> None:
        try:
            self._refuse_what_was_cut_short()
            terms = read_terms(self._options, self._base)
            matcher = TermMatcher(terms)
        except TermsError as error:
            self.trouble = str(error)
            _logger.error("term lists were changed and cannot be used; the old stay: %s", error)
            return
        except Exception:
            self.trouble = "term lists were changed and cannot be used; see the worker's log"
            _logger.exception("term lists were changed and cannot be used; the old stay")
            return
        self._matcher, self.version = matcher, _version(terms)
        self.trouble = None
        _logger.info("term lists were read again: %d terms, %s", matcher.size, self.version)

    def _refuse_what_was_cut_short(self) -> None:
        for file, stamp in zip(self._files, self._seen, strict=True):
            if stamp is not None and stamp[1] == 0:
                raise TermsError(
                    f"{file}: the file has become empty, as one does that is saved on a full disk; "
                    "if the list is to have no terms, leave a comment in it"
                )

    def _stamps(self) -> list[tuple[int, int] | None]:
        stamps: list[tuple[int, int] | None] = []
        for file in self._files:
            try:
                found = file.stat()
            except OSError:
                stamps.append(None)
            else:
                stamps.append((found.st_mtime_ns, found.st_size))
        return stamps


def _version(terms: Sequence[Term]) -> str:
    """The lists' name in findings: the same terms, said the same of, have the same."""
    digest = hashlib.sha256()
    for term in terms:
        said = (term.list, term.term, term.kind, term.language, str(term.boundaries))
        digest.update("\0".join((*said, term.normalise, term.category, term.severity)).encode())
        digest.update(b"\1")
    return f"terms@{digest.hexdigest()[:12]}"
