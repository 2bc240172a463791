"""What was found is counted for Prometheus, in a bounded number of series."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from operators.findings import Detection, Findings, RuleHit, Verdict
from operators.frame import Frame, Origin
from streams.findings_metrics import OTHER, Bounded
from streams.metrics import Metrics

BOX = (0.0, 0.0, 1.0, 1.0)


def frame(number: int, feed: str = "door") -> Frame:
    made = Frame(f"id-{number}", feed, 1, Origin("images", 0, number, 1))
    made.findings = Findings(
        objects=[Detection("face", 0.9, BOX), Detection("face", 0.8, BOX)],
        scores={"nsfw": 0.05},
        verdict=Verdict(
            "block",
            "p1",
            [RuleHit("faces", "block"), RuleHit("faces-try", "review", shadow=True)],
        ),
    )
    return made


def value(metrics: Metrics, metric: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"imagewire_{metric}", labels)


def test_labels_rules_and_scores_of_an_image_are_counted_once_each() -> None:
    metrics = Metrics()
    for number in range(3):
        metrics.finished(frame(number))
    assert value(metrics, "frames_out_total", feed="door", action="block") == 3
    assert value(metrics, "images_with_label_total", feed="door", label="face") == 3
    fired = {"feed": "door", "rule": "faces", "action": "block", "shadow": "false"}
    assert value(metrics, "rules_fired_total", **fired) == 3
    shadow = fired | {"rule": "faces-try", "action": "review", "shadow": "true"}
    assert value(metrics, "rules_fired_total", **shadow) == 3
    assert value(metrics, "score_bucket", feed="door", name="nsfw", le="0.05") == 3
    assert value(metrics, "score_bucket", feed="door", name="nsfw", le="0.02") == 0


def test_a_dead_letter_is_counted_by_its_reason_and_has_no_findings() -> None:
    metrics = Metrics()
    failed = frame(0)
    failed.fail("fetch", "not-found", "it is not there")
    metrics.finished(failed)
    assert value(metrics, "failures_total", stage="fetch", reason="not-found") == 1
    assert value(metrics, "frames_failed_total", feed="door", stage="fetch") == 1
    assert value(metrics, "images_with_label_total", feed="door", label="face") is None


def test_names_without_end_share_a_series_and_take_no_memory() -> None:
    registry = CollectorRegistry()
    bounded = Bounded(Counter("seen_total", "", ["feed", "label"], registry=registry), 10)
    for number in range(1000):
        bounded.labels("door", f"label-{number}").inc()
    assert registry.get_sample_value("seen_total", {"feed": "door", "label": "label-9"}) == 1
    assert registry.get_sample_value("seen_total", {"feed": "door", "label": OTHER}) == 990
    assert len(bounded._children) == 11


def test_feeds_without_end_share_a_label() -> None:
    metrics = Metrics(max_feeds=5)
    for number in range(300):
        metrics.finished(frame(number, f"feed-{number}"))
    assert value(metrics, "images_with_label_total", feed=OTHER, label="face") == 295
