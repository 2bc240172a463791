"""The part that measures latency against load."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from bench.figures import Options
from bench.parts import latency
from bench.parts.latency.line import Load
from bench.parts.latency.reading import Reading


@pytest.mark.smoke
def test_latency_is_measured_at_every_load(tmp_path: Path) -> None:
    report = latency.run(Options(1, "cpu", tmp_path, quick=True))

    figures = {figure.name: figure for figure in report.figures}
    assert figures["idle_p50_over_service"].target == 1.15
    assert figures["idle_p50_over_service"].value > 0
    assert figures["p99_at_70_over_bound"].target == 1.0
    assert "throughput_at_110_over_capacity" in figures
    assert figures["memory_growth_at_110"].value > 0
    for fraction, _ in latency.QUICK.loads:
        assert f"| {fraction:.0%} |" in report.text
    assert all((tmp_path / plot).stat().st_size for plot in report.plots)


def test_images_arrive_by_a_poisson_process() -> None:
    load = Load(rate=200.0, seconds=50.0, seed=1)

    arrivals = load.arrivals()

    assert arrivals == sorted(arrivals)
    assert arrivals[-1] < load.seconds
    assert len(arrivals) == 10_000
    gaps = [later - earlier for earlier, later in itertools.pairwise(arrivals)]
    # Of an exponential distribution the standard deviation is the mean.
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert deviation == pytest.approx(mean, rel=0.05)


def test_every_repeat_of_a_load_has_arrivals_of_its_own_that_come_again_in_the_next_run() -> None:
    assert Load(10, 5, seed=1).arrivals() == Load(10, 5, seed=1).arrivals()
    assert Load(10, 5, seed=1).arrivals() != Load(10, 5, seed=2).arrivals()


def test_stages_are_timed_between_two_readings_alone() -> None:
    name, labels = "imagewire_stage_seconds", "decode"
    earlier = Reading({(f"{name}_sum", labels): 5.0, (f"{name}_count", labels): 5.0})
    later = Reading({(f"{name}_sum", labels): 5.4, (f"{name}_count", labels): 7.0})

    assert later.since(earlier).stage_seconds("decode") == pytest.approx(0.2)
    assert later.since(later).stage_seconds("decode") == 0
