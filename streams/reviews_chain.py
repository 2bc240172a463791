"""Puts what people decided, and the drawing of audits, behind the policy.

The pipeline knows a chain that analyses and decides; this one does both by another, and then looks
at each verdict: a person's decision takes its place, else the image may be drawn for an audit.
"""

from __future__ import annotations

from collections.abc import Sequence

from operators.chain import OutOfMemory
from operators.frame import Frame
from streams.reviews_audit import AuditSampling
from streams.reviews_overrides import Overrides
from streams.stages import ProcessesFrames


class ReviewedChain:
    """A chain whose verdicts people outrank."""

    def __init__(
        self, chain: ProcessesFrames, overrides: Overrides, sampling: AuditSampling
    ) -> None:
        self._chain = chain
        self._overrides = overrides
        self._sampling = sampling

    def analyse(self, frames: Sequence[Frame]) -> OutOfMemory | None:
        """As the chain's."""
        return self._chain.analyse(frames)

    def decide(self, frames: Sequence[Frame]) -> None:
        """Give every frame that has not failed its verdict, a person's if there is one."""
        self._chain.decide(frames)
        for frame in frames:
            verdict = frame.findings.verdict
            if frame.failed or verdict is None:
                continue
            decided = self._overrides.decided(verdict, frame)
            if decided.decided_by == "policy":
                decided = self._sampling.marked(frame.image_id, decided)
            frame.findings.verdict = decided
