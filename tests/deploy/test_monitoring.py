"""Alerts and dashboard ask for metrics that a worker really has, by labels that it really sets."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from imagewire.settings import HttpSettings
from streams.metrics import Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME = re.compile(r"\bimagewire_[a-z_]+\b")


def known_metrics() -> dict[str, set[str]]:
    """Each series that a worker exposes, with its labels."""
    found: dict[str, set[str]] = {}
    for metric in set(Metrics().registry._names_to_collectors.values()):
        if isinstance(metric, MetricWrapperBase):
            labels = set(metric._labelnames)
            name = metric._name
            if isinstance(metric, Counter):
                found[f"{name}_total"] = labels
            elif isinstance(metric, Histogram):
                found[f"{name}_bucket"] = labels | {"le"}
                found[f"{name}_sum"] = found[f"{name}_count"] = labels
            else:
                found[name] = labels
    return found


def alerts() -> list[dict[str, Any]]:
    content = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    return [rule for group in content["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    content = json.loads((DEPLOY / "grafana" / "dashboards" / "imagewire.json").read_text())
    assert isinstance(content, dict)
    return content


def queries() -> list[str]:
    panels = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    return panels + [rule["expr"] for rule in alerts()]


def test_every_query_asks_for_metrics_that_exist() -> None:
    known = known_metrics()
    for query in queries():
        for name in NAME.findall(query):
            assert name in known, query


@pytest.mark.parametrize("query", queries())
def test_every_query_groups_and_filters_by_labels_that_the_metric_has(query: str) -> None:
    known = known_metrics()
    labels = set().union(*(known[name] for name in NAME.findall(query))) | {"job", "instance"}
    for grouping in re.findall(r"\bby \(([^)]+)\)", query):
        assert {label.strip() for label in grouping.split(",")} <= labels
    for matcher in re.findall(r"\{([^}]+)\}", query):
        assert set(re.findall(r"(\w+)\s*=", matcher)) <= labels
    assert query.count("(") == query.count(")")


def test_the_dashboard_shows_every_metric_of_the_path() -> None:
    shown = set(NAME.findall(json.dumps(dashboard())))
    for metric in ("frames_in_total", "frames_out_total", "frames_failed_total", "queue_depth"):
        assert f"imagewire_{metric}" in shown
    for metric in ("stage_seconds", "latency_seconds", "batch_wait_seconds"):
        assert f"imagewire_{metric}_bucket" in shown
    assert {"imagewire_consumer_lag", "imagewire_model_info"} <= shown


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_the_dashboard_reads_the_source_that_is_provisioned() -> None:
    provisioned = yaml.safe_load(
        (DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yaml").read_text()
    )
    source = provisioned["datasources"][0]
    assert {panel["datasource"]["uid"] for panel in dashboard()["panels"]} == {source["uid"]}


def test_every_alert_says_how_bad_it_is_and_what_it_means() -> None:
    assert len({rule["alert"] for rule in alerts()}) == len(alerts())
    for rule in alerts():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]


def test_prometheus_finds_workers_where_they_listen() -> None:
    content = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (job,) = content["scrape_configs"]
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    port = services["worker"]["environment"]["IMAGEWIRE_HTTP__PORT"]
    assert job["dns_sd_configs"][0]["names"] == ["worker"]
    assert job["dns_sd_configs"][0]["port"] == int(port) == HttpSettings().port
    secret = Path(job["authorization"]["credentials_file"]).name
    assert secret in services["prometheus"]["secrets"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool")
def test_promtool_accepts_the_rules() -> None:
    answer = subprocess.run(
        ["promtool", "check", "rules", str(DEPLOY / "prometheus" / "alerts.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


class Worker(BaseHTTPRequestHandler):
    """Answers as a healthy worker would that wants the key `right`."""

    def do_GET(self) -> None:
        healthy = self.path == "/healthz" and self.headers["Authorization"] == "Bearer right"
        self.send_response(200 if healthy else 401)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def worker_port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Worker) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def health(port: int, key: str) -> int:
    return subprocess.run(
        [sys.executable, "-I", str(DEPLOY / "healthcheck.py")],
        env={"IMAGEWIRE_HTTP__PORT": str(port), "IMAGEWIRE_HTTP__KEY": key},
        capture_output=True,
        check=False,
    ).returncode


def test_the_containers_health_is_the_workers_health(worker_port: int) -> None:
    assert health(worker_port, "right") == 0
    assert health(worker_port, "wrong") == 1
