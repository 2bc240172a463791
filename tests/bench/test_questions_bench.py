"""The part on questions asks everything it says, of real stores and in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.figures import Options
from bench.parts import questions
from bench.parts.questions.asking import Waits
from bench.parts.questions.browser import PAGES, browser_program


def test_the_99th_percentile_is_a_wait_that_somebody_had() -> None:
    assert Waits((3.0, 1.0, 2.0)).p99 == 3.0
    assert Waits(tuple(float(n) for n in range(1, 101))).p99 == 99.0
    assert Waits((5.0,)).median == 5.0


@pytest.mark.smoke
@pytest.mark.timeout(900)
def test_everything_is_asked_and_looked_at(tmp_path: Path) -> None:
    report = questions.run(Options(repeats=1, device="cpu", plots=tmp_path, quick=True))
    values = {each.name: each.value for each in report.figures}
    wanted = {
        f"{name}_{share}_ms"
        for name in ("search_by_id", "search_by_picture", "sql_idle", "sql_under_load")
        for share in ("p50", "p99")
    }
    if isinstance(browser_program(), Path):
        wanted |= {f"page_{view}_ms" for view in PAGES} | {"live_lag_p99_ms", "live_shown"}
    assert wanted <= values.keys()
    assert all(value > 0 for name, value in values.items() if name in wanted)
