"""The two moments of text: before a verdict all of it is read, after it only what may be stored.

Every frame passes `into` before the policy and `out` after it, those whose findings were made for
another frame included, and dead letters pass `out` when they fail. Should redaction itself fail,
the text is thrown away and the image becomes a dead letter: nothing leaves unread.
"""

from __future__ import annotations

import logging

import msgspec

from operators.findings import Findings
from operators.frame import Failure, Frame
from operators.redact import Redactor
from operators.terms import TermLists
from operators.text_normal import normal_text

_logger = logging.getLogger(__name__)

STAGE = "redaction"
"""Where frames fail whose text could not be made fit to be stored."""


class TextGate:
    """Prepares text for the policy, and what remains of it for the stores."""

    def __init__(self, terms: TermLists | None = None, redactor: Redactor | None = None) -> None:
        """
        Args:
            terms: looked for, with normal spelling of each line; neither if `None`.
            redactor: nothing is taken out if `None`.
        """
        self._terms = terms
        self._redactor = redactor

    def into(self, frame: Frame) -> None:
        """Fill what rules read of text: its normal spelling, and the terms in it."""
        findings, terms = frame.findings, self._terms
        if terms is None or not findings.texts:
            return
        findings.texts = [
            line if line.normal else msgspec.structs.replace(line, normal=normal_text(line.text))
            for line in findings.texts
        ]
        if len(terms):
            findings.terms = terms.match([line.text for line in findings.texts])
            findings.models["terms"] = terms.version

    def look_for_changes(self) -> None:
        """Have term lists read again if their files changed; between two batches."""
        if self._terms is not None:
            self._terms.look_for_changes()

    def out(self, frame: Frame) -> None:
        """Leave in `frame` only what may be stored. Never raises."""
        if self._redactor is None:
            return
        try:
            failure = frame.failure
            if failure is not None:
                # What an operator says of its failure may quote what it read.
                detail = self.clean(failure.detail, frame)
                if detail != failure.detail:
                    frame.failure = Failure(failure.stage, failure.reason, detail)
            self._redactor.protect(frame)
        except Exception as error:  # noqa: BLE001 - its message may hold the text itself
            _logger.error(
                "the text of image %s could not be redacted (%s) and was thrown away",
                frame.image_id,
                type(error).__name__,
            )
            held = frame.findings
            frame.findings = Findings(
                image=held.image, fingerprint=held.fingerprint, models=dict(held.models)
            )
            frame.failure = Failure(
                STAGE,
                "internal-error",
                f"personal data in its text could not be taken out ({type(error).__name__}); the "
                "text was thrown away. Replay the image once this is mended",
            )

    def clean(self, text: str, frame: Frame | None = None) -> str:
        """Any text for people, such as a line of the log, without personal data; nor with pieces
        of that which was read in `frame`. Never raises."""
        if self._redactor is None:
            return text
        read = [line.text for line in frame.findings.texts] if frame is not None else []
        try:
            return self._redactor.text(text, self._redactor.lines(read).removed if read else ())
        except Exception as error:  # noqa: BLE001 - its message may hold the text itself
            return f"(withheld, as it could not be redacted: {type(error).__name__})"
