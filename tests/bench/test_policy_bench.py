"""The part on policies measures every size."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.figures import Options
from bench.parts import policy


@pytest.mark.smoke
def test_policies_of_every_size_are_measured(tmp_path: Path) -> None:
    report = policy.run(Options(repeats=1, device="cpu", plots=tmp_path, quick=True))
    found = {figure.name: figure for figure in report.figures}
    assert found["policy_default_us"].target == 40
    assert found["policy_50_us"].target == 300
    assert all(figure.value > 0 for figure in report.figures)
    assert "| 500 rules | 500 |" in report.text
