"""Mixed picture sizes neither pad wastefully nor fall apart into single pictures."""

from __future__ import annotations

from bench.padding_waste import UNLIKE, waste
from bench.photos import SIZES


def test_a_usual_mixture_pads_next_to_nothing_and_stays_in_batches() -> None:
    shared, single, together = waste(SIZES, 16, batches=40)
    assert shared <= 1.05 < single
    assert together >= 4


def test_a_dozen_sizes_both_ways_up_pad_little() -> None:
    shared, single, together = waste(UNLIKE, 16, batches=40)
    assert shared <= 1.15
    assert single >= 1.8
    assert together >= 2
