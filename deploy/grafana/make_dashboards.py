"""Writes the dashboards: `python deploy/grafana/make_dashboards.py`.

Grafana reads the JSON in `dashboards/`, which is made from the modules beside this one; a test says
when it is not current. Only the standard library is needed.
"""

from __future__ import annotations

from pathlib import Path

from model_health import MODEL_HEALTH
from panels import rendered
from service import SERVICE
from verdicts import VERDICTS

FOLDER = Path(__file__).parent / "dashboards"
DASHBOARDS = {
    "imagewire.json": SERVICE,
    "imagewire-models.json": MODEL_HEALTH,
    "imagewire-verdicts.json": VERDICTS,
}


def main() -> None:
    """Write every dashboard."""
    for name, dashboard in DASHBOARDS.items():
        (FOLDER / name).write_text(rendered(dashboard), encoding="utf-8")


if __name__ == "__main__":
    main()
