"""What a dashboard is made of, and Grafana's JSON for it.

That JSON is thirty lines a panel, of which three are about the panel. Those three stand in
`service.py`, `model_health.py` and `verdicts.py`; the rest is here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

SOURCE = {"type": "prometheus", "uid": "prometheus"}
RATE = "[$__rate_interval]"
FEED = '{feed=~"$feed"}'
WORKER = '{job="imagewire-worker"}'

Kind = Literal["timeseries", "stat", "table", "heatmap"]
Query = tuple[str, str]
"""PromQL, and what its series are called."""


@dataclass(frozen=True)
class Panel:
    """One panel; `thresholds` are drawn as lines, or colour a single figure."""

    title: str
    description: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: Kind = "timeseries"
    width: int = 12
    stacked: bool = False
    thresholds: Sequence[float] = ()
    maximum: float | None = None

    @property
    def height(self) -> int:
        return 4 if self.kind == "stat" else 8


@dataclass(frozen=True)
class Dashboard:
    """One file. `variables`: name and the PromQL that finds its values."""

    uid: str
    title: str
    panels: Sequence[Panel]
    variables: dict[str, str] = field(default_factory=dict)
    since: str = "now-1h"
    refresh: str = "10s"


def quantiles(metric: str, labels: str = "", by: str = "") -> list[Query]:
    """The median, the 95th and the 99th percentile of a histogram."""
    groups = f"le, {by}" if by else "le"
    called = f" {{{{{by}}}}}" if by else ""
    return [
        (
            f"histogram_quantile({share}, sum by ({groups}) (rate({metric}_bucket{labels}{RATE})))",
            f"{name}{called}",
        )
        for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    ]


def rendered(dashboard: Dashboard) -> str:
    """The JSON that Grafana reads."""
    content = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["imagewire"],
        "schemaVersion": 41,
        "version": 1,
        "editable": True,
        "refresh": dashboard.refresh,
        "time": {"from": dashboard.since, "to": "now"},
        "timezone": "browser",
        "links": [
            {
                "type": "dashboards",
                "title": "Imagewire",
                "tags": ["imagewire"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "templating": {"list": [_variable(*each) for each in dashboard.variables.items()]},
        "annotations": {"list": []},
        "panels": _placed(dashboard.panels),
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "refresh": 2,
        "sort": 1,
        "current": {"text": "All", "value": "$__all"},
    }


def _placed(panels: Sequence[Panel]) -> list[dict[str, Any]]:
    """The panels from left to right, in rows of 24 columns."""
    placed = []
    x = y = height = 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > 24:
            x, y, height = 0, y + height, 0
        position = {"x": x, "y": y, "w": panel.width, "h": panel.height}
        x, height = x + panel.width, max(height, panel.height)
        placed.append({"id": number, "gridPos": position} | _panel(panel))
    return placed


def _panel(panel: Panel) -> dict[str, Any]:
    custom: dict[str, Any] = {}
    options: dict[str, Any] = {}
    if panel.kind == "timeseries":
        custom = {"fillOpacity": 10, "showPoints": "never", "spanNulls": False}
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
        if panel.stacked:
            custom |= {"fillOpacity": 50, "stacking": {"mode": "normal", "group": "A"}}
        if panel.thresholds:
            custom["thresholdsStyle"] = {"mode": "dashed"}
    elif panel.kind == "stat":
        options = {
            "graphMode": "area",
            "colorMode": "value",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        }
    elif panel.kind == "heatmap":
        options = {"calculate": False, "yAxis": {"unit": "short"}, "color": {"scheme": "Blues"}}
    defaults: dict[str, Any] = {"unit": panel.unit}
    if custom:
        defaults["custom"] = custom
    if panel.maximum is not None:
        defaults |= {"min": 0, "max": panel.maximum}
    if panel.kind in ("stat", "timeseries"):
        colors = ("orange", "red")[-len(panel.thresholds) :] if panel.thresholds else ()
        steps = [{"color": "green", "value": None}]
        steps += [
            {"color": color, "value": value}
            for color, value in zip(colors, panel.thresholds, strict=True)
        ]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    content: dict[str, Any] = {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [_target(panel.kind, *each) for each in enumerate(panel.queries)],
    }
    if panel.kind == "table":
        content["transformations"] = [
            {"id": "organize", "options": {"excludeByName": {"Time": True}}}
        ]
    return content


def _target(kind: Kind, number: int, query: Query) -> dict[str, Any]:
    target: dict[str, Any] = {
        "refId": chr(ord("A") + number),
        "datasource": SOURCE,
        "expr": query[0],
        "legendFormat": query[1],
    }
    if kind == "table":
        target |= {"instant": True, "range": False, "format": "table"}
    elif kind == "heatmap":
        target["format"] = "heatmap"
    return target
