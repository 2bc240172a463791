"""The parts on the ceiling and on end to end run the product's own decoder and operators."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.figures import Options
from bench.parts import ceiling, end_to_end


@pytest.mark.smoke
def test_the_ceiling_is_measured_by_operator_and_for_all_of_them(tmp_path: Path) -> None:
    report = ceiling.run(Options(repeats=1, device="cpu", plots=tmp_path, quick=True))

    found = {figure.name: figure.value for figure in report.figures}
    assert found.keys() == {"ceiling_embedding", "ceiling_default_set"}
    assert found["ceiling_embedding"] > found["ceiling_default_set"] > 0


@pytest.mark.smoke
def test_end_to_end_is_measured_against_the_ceiling_from_disk_and_over_http(
    tmp_path: Path,
) -> None:
    report = end_to_end.run(Options(repeats=1, device="cpu", plots=tmp_path, quick=True))

    found = {figure.name: figure for figure in report.figures}
    assert found["end_to_end_over_ceiling"].target == 0.95
    assert found["end_to_end_over_ceiling"].value > 0
    assert found["end_to_end_over_ceiling_http"].value > 0
