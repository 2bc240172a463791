"""The part on overhead runs every contestant and says what each adds."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.figures import Options
from bench.parts import overhead


@pytest.mark.smoke
def test_the_overhead_is_measured_beside_bare_loops_and_by_sink(tmp_path: Path) -> None:
    report = overhead.run(Options(repeats=1, device="cpu", plots=tmp_path, quick=True))

    names = {figure.name for figure in report.figures}
    assert {"empty_over_bare_faust", "cpu_us_per_image", "cpu_us_of_qdrant_sink"} <= names
    assert all(figure.value > 0 for figure in report.figures if "_of_" not in figure.name)
    for entry in overhead.ENTRIES:
        assert entry.label in report.text
