"""The part on people's decisions runs, and measures what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.figures import Options
from bench.parts import people


@pytest.mark.smoke
def test_decisions_and_tombstones_are_timed_and_weighed(tmp_path: Path) -> None:
    report = people.run(Options(repeats=1, device="cpu", plots=tmp_path, quick=True))
    values = {each.name: each.value for each in report.figures}
    assert set(values) == {
        "people_decision_us",
        "people_tombstone_us",
        "people_override_bytes",
        "people_tombstone_bytes",
    }
    assert all(value > 0 for value in values.values())
