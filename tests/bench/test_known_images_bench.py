"""The parts on known images measure what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.figures import Options
from bench.parts import known_images, near_duplicates


def options(tmp_path: Path) -> Options:
    return Options(repeats=1, device="cpu", plots=tmp_path, quick=True)


@pytest.mark.smoke
def test_matching_is_measured(tmp_path: Path) -> None:
    report = known_images.run(options(tmp_path))
    assert all(figure.value > 0 for figure in report.figures)
    assert "| 1,000 |" in report.text


@pytest.mark.smoke
def test_every_way_of_recognising_is_compared(tmp_path: Path) -> None:
    report = near_duplicates.run(options(tmp_path))
    found = {figure.name: figure.value for figure in report.figures}
    assert found["near_duplicates_sha256_recall"] == 0
    assert found["near_duplicates_pdq_recall"] > 0.5
    assert found["near_duplicates_either_recall"] >= found["near_duplicates_pdq_turned_recall"]
