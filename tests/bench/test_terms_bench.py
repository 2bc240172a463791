"""The part of the bench about text does what it says, on as little as possible."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.figures import Options
from bench.parts import terms


@pytest.mark.smoke
def test_text_is_measured_for_each_size_of_lists(tmp_path: Path) -> None:
    report = terms.run(Options(repeats=1, device="cpu", plots=tmp_path, quick=True))
    assert [figure.name for figure in report.figures] == [
        *("text_normal_spelling_us", "text_redaction_us", "text_100_terms_us"),
        "text_10000_terms_us",
    ]
    assert all(figure.value > 0 for figure in report.figures)
