"""What Prometheus is told about what was found: labels, rules, scores, and why images failed.

These are counts of what a worker finished; a replay counts again, as it is work again. Exact
figures are in ClickHouse. Names come from models, policies and third-party operators, so each
metric keeps to so many series and counts the rest as `other`: a policy with a thousand rules must
not take a Prometheus down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram

from operators.frame import Frame

OTHER = "other"
_SCORES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1)

_Metric = TypeVar("_Metric", Counter, Histogram)


class Bounded(Generic[_Metric]):
    """A metric with at most so many series; values that come later are counted as `other`.

    Args:
        most: series apart from those that stand for `other`, one for each first label.
    """

    def __init__(self, metric: _Metric, most: int) -> None:
        self._metric: _Metric = metric
        self._most = most
        self._children: dict[tuple[str, ...], _Metric] = {}
        self._series = 0

    def labels(self, *values: str) -> _Metric:
        """The child for these label values: the first is bounded by the caller and stays."""
        child = self._children.get(values)
        if child is not None:
            return child
        if self._series >= self._most:
            # Not remembered under its own name, which would grow without end.
            others = (values[0], *(OTHER for _ in values[1:]))
            child = self._children.get(others)
            if child is None:
                child = self._children[others] = self._metric.labels(*others)
            return child
        self._series += 1
        child = self._children[values] = self._metric.labels(*values)
        return child


class FindingsMetrics:
    """Counts what one worker found.

    Args:
        feed: gives the label for a feed's name; see `Metrics.feed`.
    """

    def __init__(self, registry: CollectorRegistry, feed: Callable[[str], str]) -> None:
        self._feed = feed
        self._failures = Bounded(
            Counter(
                "imagewire_failures_total",
                "Frames that became dead letters, by the reason's code",
                ["stage", "reason"],
                registry=registry,
            ),
            500,
        )
        self._labels = Bounded(
            Counter(
                "imagewire_images_with_label_total",
                "Images in which something of a label was seen, once for each label",
                ["feed", "label"],
                registry=registry,
            ),
            2000,
        )
        self._rules = Bounded(
            Counter(
                "imagewire_rules_fired_total",
                "Images on which a rule of the policy fired; shadow rules have no part in verdicts",
                ["feed", "rule", "action", "shadow"],
                registry=registry,
            ),
            2000,
        )
        self._scores = Bounded(
            Histogram(
                "imagewire_score",
                "Scores of images, by name",
                ["feed", "name"],
                buckets=_SCORES,
                registry=registry,
            ),
            200,
        )

    def count(self, frame: Frame) -> None:
        """Count a frame that is safe in every sink, as findings or as a dead letter."""
        if frame.failure is not None:
            self._failures.labels(frame.failure.stage, frame.failure.reason).inc()
            return
        findings = frame.findings
        feed = self._feed(frame.feed)
        for label in {found.label for found in findings.objects}:
            self._labels.labels(feed, label).inc()
        for name, score in findings.scores.items():
            self._scores.labels(feed, name).observe(score)
        if findings.verdict is not None:
            for hit in findings.verdict.rules:
                shadow = "true" if hit.shadow else "false"
                self._rules.labels(feed, hit.rule, hit.action, shadow).inc()
