"""The part that measures live images beside a backlog of bulk images."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.figures import Options
from bench.parts import lanes


@pytest.mark.smoke
def test_live_latency_is_measured_with_and_without_a_backlog(tmp_path: Path) -> None:
    report = lanes.run(Options(1, "cpu", tmp_path, quick=True))

    figures = {figure.name: figure for figure in report.figures}
    assert figures["live_p99_over_idle_with_bulk_backlog"].target == 1.5
    assert figures["live_p99_over_idle_with_bulk_backlog"].value > 0
    assert "| alone |" in report.text
    assert "| beside the backlog |" in report.text


def test_percentiles_are_compared_within_a_repeat() -> None:
    quiet = lanes.Repeat(40.0, idle=[0.1, 0.2], busy=[0.2, 0.3], bulk=20.0)
    noisy = lanes.Repeat(20.0, idle=[0.3, 0.6], busy=[0.3, 0.6], bulk=10.0)

    figures = {figure.name: figure for figure in lanes.figures([quiet, noisy])}

    assert figures["live_p50_over_idle_with_bulk_backlog"].spread == (1.0, pytest.approx(5 / 3))
    assert figures["bulk_beside_live_over_capacity"].value == 0.5
