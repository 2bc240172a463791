"""A running worker exposes every metric that alerts and dashboards ask for."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from running_up import RunningUp, Story, until

pytestmark = [pytest.mark.xdist_group("end-to-end"), pytest.mark.timeout(600)]

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME = re.compile(r"\b(?:imagewire|process)_[a-z_]+\b")
ONLY_WITH_A_GPU = {"imagewire_device_memory_bytes"}


def asked_for() -> set[str]:
    """Names of series in alerts and dashboards."""
    found: set[str] = set()
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yaml").read_text("utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            found.update(NAME.findall(rule["expr"]))
    for file in (DEPLOY / "grafana" / "dashboards").glob("*.json"):
        for panel in json.loads(file.read_text("utf-8"))["panels"]:
            for target in panel["targets"]:
                found.update(NAME.findall(target["expr"]))
    return found


def test_every_metric_of_alerts_and_dashboards_is_exposed(up: RunningUp, story: Story) -> None:
    families = list(text_string_to_metric_families(up.get("/metrics").text))
    exposed = {sample.name for family in families for sample in family.samples}
    # Families without a series, since nothing of the kind happened yet, are announced all the same.
    for family in families:
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
        exposed |= {family.name + suffix for suffix in suffixes.get(family.type, ("",))}
    assert len(asked_for()) > 40
    wanted = {name for name in asked_for() if not name.startswith("imagewire_api_")}
    assert wanted - ONLY_WITH_A_GPU <= exposed


def test_what_the_worker_did_shows_in_its_metrics(up: RunningUp, story: Story) -> None:
    def samples() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(up.get("/metrics").text)
            for sample in family.samples
        }

    found = samples()
    reasons = {
        dict(labels)["reason"]
        for (name, labels), value in found.items()
        if name == "imagewire_failures_total" and value
    }
    assert {reason for _, reason in story.dead.values()} <= reasons
    assert found["imagewire_score_count", (("feed", "story"), ("name", "nsfw"))] >= 5
    assert any(name == "imagewire_images_with_label_total" for name, _ in found)
    assert found["imagewire_memory_bytes", (("part", "worker"),)] > 100_000_000
    # It has all partitions, so it is the one that asks how the models are doing.
    until(
        "ClickHouse was asked",
        lambda: samples()["imagewire_model_health_looked_at_seconds", ()] > time.time() - 7200,
        60,
    )
