"""The part on decoding runs every library and every decoder of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.figures import Options
from bench.parts import decode


@pytest.mark.smoke
def test_decoders_are_compared_by_size_and_a_reduced_size_is_measured(tmp_path: Path) -> None:
    report = decode.run(Options(repeats=1, device="cpu", plots=tmp_path, quick=True))

    found = {figure.name: figure for figure in report.figures}
    assert found["decode_contained_over_opencv"].target == 0.9
    assert found["decode_contained_over_opencv"].value > 0
    assert found["decode_reduced_over_full"].value > 0
    for name in ("OpenCV", "Pillow", "simplejpeg", "ours, in threads", "ours, contained, reduced"):
        assert f"| {name} |" in report.text
