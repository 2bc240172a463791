"""Puts what people decided in place of the policy's verdicts, and draws audits from the rest."""

from __future__ import annotations

from collections.abc import Sequence

from operators.frame import Frame
from streams.reviews_audit import AuditSampling
from streams.reviews_overrides import Overrides


class PeopleFirst:
    """Looks at frames that the policy has decided over; see `OperatorChain.on_decided`."""

    def __init__(self, overrides: Overrides, sampling: AuditSampling) -> None:
        self._overrides = overrides
        self._sampling = sampling

    def __call__(self, frames: Sequence[Frame]) -> None:
        """Give each frame a person's verdict if there is one; else it may be drawn."""
        for frame in frames:
            verdict = frame.findings.verdict
            if frame.failed or verdict is None:
                continue
            decided = self._overrides.decided(verdict, frame)
            if decided.decided_by == "policy":
                decided = self._sampling.marked(frame.image_id, decided)
            frame.findings.verdict = decided
