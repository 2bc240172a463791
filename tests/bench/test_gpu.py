"""The part on GPUs does all of its work, here on a processor; its figures mean nothing then."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.figures import Options
from bench.parts import gpu


@pytest.mark.smoke
def test_every_table_and_figure_is_there(tmp_path: Path) -> None:
    told: list[str] = []
    report = gpu.run(Options(1, "cpu", tmp_path, quick=True, report=told.append))
    for heading in ("Operators by batch", "Precision", "Decoding", "Processes on one device"):
        assert f"**{heading}**" in report.text
    assert {figure.name for figure in report.figures} == {
        "default_set_images_per_second",
        "decode_and_operators_over_ceiling",
        "best_processes_images_per_second",
    }
    assert all(figure.value > 0 for figure in report.figures)
    assert told


@pytest.mark.smoke
def test_processes_that_share_a_device_end_with_the_measurement() -> None:
    with gpu.Crowd(2, "cpu", 1, ("fingerprint",)) as crowd:
        assert crowd.rate(0.1) > 0
        processes = list(crowd._processes)
    assert all(process.poll() == 0 for process in processes)
