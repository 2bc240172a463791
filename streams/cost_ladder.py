"""The cheapest answer first: banned, else analysed before, else left to the decoder and the models.

A file on a banlist has its verdict for the price of hashing it, and one that was analysed before
for that of a look-up; each model run that is spared is counted by what spared it.
"""

from __future__ import annotations

from collections.abc import Sequence

from operators.frame import Frame
from operators.known_images import KNOWN
from streams.metrics import Metrics
from streams.reuse import Reuse
from streams.stages import RecognisesImages


class CostLadder:
    """What can be decided about frames that are not decoded yet."""

    def __init__(
        self, known: RecognisesImages | None, reuse: Reuse | None, metrics: Metrics
    ) -> None:
        """
        Args:
            known: recognises banned images; `None` if there are no banlists.
            reuse: findings by content; `None` if they are not reused.
        """
        self._known = known
        self._reuse = reuse
        self._metrics = metrics

    def climb(self, frames: Sequence[Frame]) -> tuple[list[Frame], list[Frame]]:
        """Sort `frames` by what is to be done; not on the event loop, as all content is hashed.

        Returns:
            Those that the policy can decide over now, and those that are to be decoded. Others wait
            for a twin that is being analysed, as `Reuse.sort` says.
        """
        settled: list[Frame] = []
        left = list(frames)
        if self._known is not None:
            settled = self._known.recognise(left)
            left = [frame for frame in left if KNOWN not in frame.findings.extra]
        if self._reuse is not None:
            sorted_frames = self._reuse.sort(left)
            cached = sorted_frames["cached"]
            self._metrics.reuse_lookups.inc(len(left))
            self._metrics.reused.labels("cached").inc(len(cached))
            self._metrics.spared_all("cache", len(cached))
            if cached and self._known is not None:
                # Lists may have changed since these findings were made.
                self._known.recognise_again(cached)
            settled, left = settled + cached, sorted_frames["new"]
        return settled, left
