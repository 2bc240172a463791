"""The peers do the same work as a worker, and the part compares them repeat by repeat."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.figures import Options
from bench.parts import peers
from bench.parts.peers.contenders import OURS, PEERS
from bench.parts.peers.findings import Found, SetFound
from bench.parts.peers.page import LATENCY_PLOT, best_peer, figures, ratios, text
from bench.parts.peers.references import DIFFERENT, References
from bench.parts.peers.rounds import Account, Speeds, rounded


def test_ratios_are_taken_within_a_repeat_against_the_peer_with_the_best_median() -> None:
    rates = {"imagewire": [30.0, 20.0, 40.0], "faust": [20.0, 10.0, 20.0], "quix": [1.0, 2.0, 90.0]}

    assert best_peer(rates) == "faust"
    assert ratios(rates) == [1.5, 2.0, 2.0]


def test_a_round_has_every_picture_equally_often() -> None:
    assert rounded(1) == DIFFERENT
    assert rounded(2.4 * DIFFERENT) == 2 * DIFFERENT


async def test_references_lead_to_files_of_their_own(tmp_path: Path) -> None:
    async with References(tmp_path) as references:
        uris = [references.uri(number, "local") for number in range(3)]

    contents = {Path(uri.removeprefix("file://")).read_bytes() for uri in uris}  # noqa: ASYNC240
    assert len(contents) == 3


def test_the_default_set_is_the_headline_and_a_ratio_that_falls_short_says_why() -> None:
    cpu_ms = {"imagewire": [60.0], "faust": [60.0]}
    fast = Speeds({"imagewire": [30.0], "faust": [20.0]}, cpu_ms)
    slow = Speeds({"imagewire": [3.0], "faust": [2.9]}, cpu_ms)
    found = Found(
        light=SetFound(20, fast, fast),
        default=SetFound(20, slow, slow),
        rate=10.0,
        latency={"imagewire": [[0.1, 0.2]], "faust": [[0.3, 0.5]]},
        kills=2,
        killed={name: Account(20, 0, 0, 3) for name in cpu_ms},
        store_away={name: Account(20, 0, 0, 5) for name in cpu_ms},
    )

    by_name = {figure.name: figure for figure in figures(found)}

    assert by_name["best_peer_ratio_local"].met is False
    assert "Faust" in by_name["best_peer_ratio_local"].note
    assert by_name["best_peer_ratio_local_without_text"].met is True
    assert by_name["peer_p99_ratio"].value == pytest.approx(2.5, rel=0.02)
    assert by_name["lost_when_killed"].met is True
    assert "| Imagewire | 0 | 0 | 3 | 0 | 0 | 5 |" in text(found)


@pytest.mark.smoke
@pytest.mark.timeout(1200)
def test_all_contenders_store_every_photo_and_survive_being_killed(tmp_path: Path) -> None:
    said: list[str] = []

    report = peers.run(Options(1, "cpu", tmp_path, quick=True, report=said.append))

    by_name = {figure.name: figure for figure in report.figures}
    assert by_name["lost_when_killed"].value == 0
    assert by_name["lost_when_a_store_was_away"].value == 0
    assert by_name["best_peer_ratio_local"].value > 0
    assert by_name["best_peer_ratio_http"].value > 0
    assert by_name["peer_p99_ratio"].value > 0
    for contender in (OURS, *PEERS):
        assert contender.title in report.text
    assert set(report.plots) == {LATENCY_PLOT}
    assert (tmp_path / LATENCY_PLOT).stat().st_size > 0
    assert said
