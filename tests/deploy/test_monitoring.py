"""Alerts and dashboards ask for metrics that a worker really has, by labels that it really sets.

That a running worker exposes them is seen in tests/imagewire/test_monitored_worker.py."""

from __future__ import annotations

import importlib
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
import torch
import yaml
from fastapi import FastAPI
from prometheus_client import Counter, Histogram, ProcessCollector
from prometheus_client.metrics import MetricWrapperBase

from imagewire.api.gate import Gate
from imagewire.api.keys import Keys
from imagewire.api.settings import ApiSettings
from imagewire.machine_metrics import MachineMetrics
from imagewire.model_health import ModelHealth
from imagewire.settings import HttpSettings, Settings
from models.device import Device
from streams.metrics import Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME = re.compile(r"\b(?:imagewire|process)_[a-z_]+\b")
DASHBOARDS = {
    file.name: json.loads(file.read_text("utf-8"))
    for file in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
}
RULES = DEPLOY / "prometheus" / "rules.yaml"
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="there is no promtool here; it comes with Debian's package prometheus",
)
RULE_TESTS = sorted(Path(__file__).parent.glob("rules_*test.yaml"))


def alerts() -> list[dict[str, Any]]:
    content = yaml.safe_load(RULES.read_text("utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    panels = [
        target["expr"]
        for dashboard in DASHBOARDS.values()
        for panel in dashboard["panels"]
        for target in panel["targets"]
    ]
    return sorted({*panels, *(rule["expr"] for rule in alerts())})


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """Each series that a worker or the API exposes, with its labels."""
    metrics = Metrics()
    Gate(FastAPI(), ApiSettings(), Keys(()), metrics.registry)
    ModelHealth(Settings(), metrics.registry, metrics.feed, lambda: True)
    found: dict[str, set[str]] = {"up": set()}
    for metric in set(metrics.registry._names_to_collectors.values()):
        if isinstance(metric, MetricWrapperBase):
            labels, name = set(metric._labelnames), metric._name
            if isinstance(metric, Counter):
                found[f"{name}_total"] = labels
            elif isinstance(metric, Histogram):
                found[f"{name}_bucket"] = labels | {"le"}
                found[f"{name}_sum"] = found[f"{name}_count"] = labels
            else:
                found[name] = labels
    machine = MachineMetrics(Device(torch.device("cpu"), torch.float32), 1)
    for family in (*machine.collect(), *ProcessCollector(registry=None).collect()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    # Only where there is a GPU.
    return found | {"imagewire_device_memory_bytes": {"kind"}}


def test_every_query_asks_for_metrics_and_labels_that_exist(known: dict[str, set[str]]) -> None:
    for query in queries():
        names = NAME.findall(query)
        assert names or "up{" in query, query
        assert set(names) <= known.keys(), query
        labels = set().union(*(known[name] for name in names)) | {"job", "instance"}
        for grouping in re.findall(r"\b(?:by|on) \(([^)]+)\)", query):
            assert {label.strip() for label in grouping.split(",")} <= labels, query
        for matcher in re.findall(r"\{([^}]+)\}", query):
            assert set(re.findall(r"(\w+)\s*(?:=|!)", matcher)) <= labels, query

    for dashboard in DASHBOARDS.values():
        for variable in dashboard["templating"]["list"]:
            query = variable["query"]["query"]
            values = re.fullmatch(r"label_values\((\w+), (\w+)\)", query)
            assert values is not None and values[2] in known[values[1]], query


@needs_promtool
def test_promtool_can_read_every_query_of_every_panel(tmp_path: Path) -> None:
    """As rules, which are PromQL with a name."""
    filled = [re.sub(r"\$__\w+", "5m", query).replace("$", "x") for query in queries()]
    rules = [{"record": f"panel:{n}", "expr": query} for n, query in enumerate(filled)]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    answer = subprocess.run(
        ["promtool", "check", "rules", file], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert f"{len(filled)} rules found" in answer.stdout


def test_the_dashboards_are_those_of_their_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DEPLOY / "grafana"))
    making = importlib.import_module("make_dashboards")
    panels = importlib.import_module("panels")
    assert making.DASHBOARDS.keys() == DASHBOARDS.keys()
    for name, dashboard in making.DASHBOARDS.items():
        text = (DEPLOY / "grafana" / "dashboards" / name).read_text("utf-8")
        assert panels.rendered(dashboard) == text, "run deploy/grafana/make_dashboards.py"


@pytest.mark.parametrize(
    ("file", "metrics"),
    [
        (
            "imagewire.json",
            "consumer_lag_seconds latency_seconds_bucket stage_seconds_bucket batch_size_sum "
            "batch_wait_seconds_bucket queue_depth failures_total sink_retries_total "
            "sink_rejections_total memory_bytes device_memory_bytes model_info policy_info",
        ),
        (
            "imagewire-models.json",
            "score_bucket drift_psi drift_psi_by_chance rule_precision score_true_share",
        ),
        (
            "imagewire-verdicts.json",
            "frames_out_total images_with_label_total rules_fired_total reviews_total",
        ),
    ],
)
def test_each_dashboard_shows_what_it_is_for(file: str, metrics: str) -> None:
    shown = set(NAME.findall(json.dumps(DASHBOARDS[file])))
    assert {f"imagewire_{name}" for name in metrics.split()} <= shown


@pytest.mark.parametrize("file", DASHBOARDS)
def test_panels_have_numbers_of_their_own_and_do_not_overlap(file: str) -> None:
    panels = DASHBOARDS[file]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize("file", DASHBOARDS)
def test_a_dashboard_reads_the_source_that_is_provisioned_by_variables_that_it_has(
    file: str,
) -> None:
    provisioned = yaml.safe_load(
        (DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yaml").read_text()
    )
    source = provisioned["datasources"][0]
    dashboard = DASHBOARDS[file]
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source["uid"]}
    used = set(re.findall(r"\$([a-z]+)", json.dumps(dashboard["panels"])))
    assert used == {variable["name"] for variable in dashboard["templating"]["list"]}
    assert all(panel["description"].endswith(".") for panel in dashboard["panels"])


def test_the_home_page_of_grafana_is_one_of_the_dashboards() -> None:
    grafana = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["grafana"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).name in DASHBOARDS


def test_every_alert_says_how_bad_it_is_what_it_means_and_what_to_do() -> None:
    """The runbook has a heading of the alert's name, which its link leads to."""
    page = (DEPLOY.parent / "docs" / "operations.md").read_text("utf-8")
    headings = re.findall(r"^### (Imagewire\w+)$", page, re.MULTILINE)
    assert sorted(headings) == sorted(rule["alert"] for rule in alerts())
    for rule in alerts():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]
        link = f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["annotations"]["runbook"] == link


def test_every_alert_is_tested_to_fire_and_to_be_calm() -> None:
    fires, calm = set(), set()
    cases = [case for file in RULE_TESTS for case in yaml.safe_load(file.read_text())["tests"]]
    for case in cases:
        for expected in case["alert_rule_test"]:
            (fires if expected["exp_alerts"] else calm).add(expected["alertname"])
    names = {rule["alert"] for rule in alerts()}
    assert fires == names
    assert calm == names


def test_prometheus_reads_the_rules_that_are_mounted() -> None:
    files = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["rule_files"]
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    mounts = dict(mount.split(":")[:2] for mount in services["prometheus"]["volumes"])
    assert files == [mounts["./prometheus/rules.yaml"]]


@needs_promtool
@pytest.mark.parametrize("arguments", [("check", [RULES]), ("test", RULE_TESTS)])
def test_promtool_accepts_the_rules_and_fires_each_alert(
    arguments: tuple[str, list[Path]],
) -> None:
    command, files = arguments
    answer = subprocess.run(
        ["promtool", command, "rules", *files], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_prometheus_finds_workers_and_the_api_where_they_listen() -> None:
    content = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    ports = {"worker": HttpSettings().port, "api": ApiSettings().port}
    variables = {"worker": "IMAGEWIRE_HTTP__PORT", "api": "IMAGEWIRE_API__PORT"}
    assert [job["job_name"] for job in content["scrape_configs"]] == (
        [f"imagewire-{name}" for name in ports]
    )
    for job, (name, port) in zip(content["scrape_configs"], ports.items(), strict=True):
        [found] = job["dns_sd_configs"]
        assert found["names"] == [name]
        assert found["port"] == port == int(services[name]["environment"][variables[name]])
        secret = Path(job["authorization"]["credentials_file"]).name
        assert secret in services["prometheus"]["secrets"]


@needs_promtool
def test_promtool_accepts_the_configuration() -> None:
    file = DEPLOY / "prometheus" / "prometheus.yml"
    answer = subprocess.run(
        ["promtool", "check", "config", "--syntax-only", file], capture_output=True, check=False
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


def health(port: int, key: str, *arguments: str) -> int:
    return subprocess.run(
        [sys.executable, "-I", str(DEPLOY / "healthcheck.py"), *arguments],
        env={"IMAGEWIRE_HTTP__PORT": str(port), "IMAGEWIRE_HTTP__KEY": key},
        capture_output=True,
        check=False,
    ).returncode


def test_the_containers_health_is_the_workers_health(worker_port: int) -> None:
    assert health(worker_port, "right") == 0
    assert health(worker_port, "wrong") == 1
    assert health(1, "right", str(worker_port)) == 0  # that of the API is told its port
