"""A calibration finds what is true of the scores, and says how sure it is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.calibrating import (
    LEAST_OF_EACH,
    Curve,
    TooFewLabelsError,
    UselessScoresError,
    cut_for,
    fit,
    quality,
    reliability,
    wilson,
)
from operators.calibration import LabelCalibration


def overconfident(
    count: int, temperature: float = 2.5, bias: float = 0.0, seed: int = 7
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a network whose logits are `temperature` times what they should be."""
    random = np.random.default_rng(seed)
    logits = random.normal(-0.5, 1.6, count)
    truth = random.random(count) < 1 / (1 + np.exp(-logits))
    return 1 / (1 + np.exp(-(logits * temperature - bias))), truth


def test_a_known_temperature_is_recovered() -> None:
    found = fit(*overconfident(20_000), method="temperature")
    assert found.curve.temperature == pytest.approx(2.5, rel=0.05)
    assert found.curve.bias == 0


def test_a_known_shift_is_recovered() -> None:
    found = fit(*overconfident(20_000, bias=1.5), method="platt")
    assert found.curve.temperature == pytest.approx(2.5, rel=0.05)
    assert found.curve.bias == pytest.approx(1.5, abs=0.15)


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic", "auto"])
def test_probabilities_come_nearer_to_what_is_true(method: str) -> None:
    found = fit(*overconfident(3_000), method=method)  # type: ignore[arg-type]
    assert found.before.ece > 0.08
    assert found.after.ece < 0.04
    assert found.after.brier < found.before.brier
    assert found.after.log_loss < found.before.log_loss


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic"])
def test_the_order_of_scores_is_kept(method: str) -> None:
    found = fit(*overconfident(2_000), method=method)  # type: ignore[arg-type]
    even = np.linspace(0, 1, 1001)
    curved = found.curve(even)
    assert (np.diff(curved) >= 0).all()
    assert ((curved >= 0) & (curved <= 1)).all()


def test_a_curve_of_another_form_is_found_where_there_are_enough_labels() -> None:
    random = np.random.default_rng(3)
    scores = random.random(8_000)
    truth = random.random(8_000) < np.where(scores < 0.6, 0.1, 0.9)
    assert fit(scores, truth).curve.method == "isotonic"
    few = random.choice(8_000, 300, replace=False)
    assert fit(scores[few], truth[few]).curve.method != "isotonic"


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic"])
def test_what_is_stored_gives_what_was_fitted(method: str) -> None:
    scores, truth = overconfident(1_500)
    found = fit(scores, truth, method=method)  # type: ignore[arg-type]
    curve = found.curve
    stored = LabelCalibration(
        method="isotonic" if curve.method == "isotonic" else "temperature",
        temperature=curve.temperature,
        bias=curve.bias,
        points=list(curve.points),
    )
    given = [stored.probability(score) for score in scores.tolist()]
    assert given == pytest.approx(found.probabilities.tolist(), abs=1e-6)


def test_a_score_that_a_detector_did_not_give_stays_nothing_and_counts_for_recall() -> None:
    scores, truth = overconfident(2_000)
    scores = np.append(scores, np.zeros(500))
    truth = np.append(truth, np.ones(500, bool))
    found = fit(scores, truth, method="temperature")
    assert (found.probabilities[2_000:] == 0).all()
    assert found.curve.temperature == pytest.approx(2.5, rel=0.2)
    assert cut_for(found.probabilities, truth, recall=0.95) is None
    reachable = truth[:2_000].sum() / truth.sum()
    cut = cut_for(found.probabilities, truth, recall=0.9 * reachable)
    assert cut is not None and cut.recall >= 0.9 * reachable


def test_a_cut_reaches_its_target_and_takes_as_much_as_it_can() -> None:
    scores, truth = overconfident(5_000)
    probabilities = fit(scores, truth).probabilities
    cut = cut_for(probabilities, truth, precision=0.9)
    assert cut is not None
    taken = probabilities >= cut.threshold
    assert truth[taken].mean() == pytest.approx(cut.precision)
    assert cut.low < cut.precision < cut.high
    assert cut.precision >= 0.9
    lower = np.unique(probabilities[probabilities < cut.threshold])[-200:]
    assert all(truth[probabilities >= value].mean() < 0.9 for value in lower)
    other = cut_for(probabilities, truth, recall=0.8)
    assert other is not None
    assert truth[probabilities >= other.threshold].sum() / truth.sum() >= 0.8
    assert other.low < other.recall < other.high


def test_an_impossible_target_has_no_cut() -> None:
    truth = np.array([True, False] * 30)
    assert cut_for(np.full(60, 0.5), truth, precision=0.9) is None
    with pytest.raises(ValueError, match="one target"):
        cut_for(np.full(60, 0.5), truth)


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_are_those_of_the_literature(
    right: int, count: int, low: float, high: float
) -> None:
    assert wilson(right, count) == pytest.approx((low, high), abs=5e-5)


def test_too_few_labels_are_refused_with_how_many_are_missing() -> None:
    scores, truth = np.linspace(0.1, 0.9, 40), np.arange(40) >= 28
    with pytest.raises(TooFewLabelsError, match=r"12 labels .* 28 say no.*8 more that say yes"):
        fit(scores, truth)
    with pytest.raises(TooFewLabelsError, match="60 more that say yes and 80 more that say no"):
        fit(np.linspace(0.1, 0.9, 60), np.arange(60) >= 20, method="isotonic")
    assert LEAST_OF_EACH == 20


def test_scores_that_say_the_opposite_are_refused() -> None:
    scores, truth = overconfident(500)
    for method in ("temperature", "isotonic"):
        with pytest.raises(UselessScoresError, match="which way round"):
            fit(scores, ~truth, method=method)  # type: ignore[arg-type]


def test_labels_that_scores_separate_perfectly_have_a_finite_temperature() -> None:
    scores = np.concatenate([np.linspace(0.05, 0.3, 30), np.linspace(0.7, 0.95, 30)])
    found = fit(scores, np.arange(60) >= 30)
    assert 0 < found.curve.temperature < 10
    assert math.isfinite(found.after.log_loss)


def test_the_same_labels_always_give_the_same_calibration() -> None:
    first, second = (fit(*overconfident(1_200)) for _ in range(2))
    assert first.curve == second.curve
    assert first.after == second.after


def test_bins_say_how_many_they_hold_and_how_sure_their_share_is() -> None:
    rows = reliability(np.array([0.05, 0.05, 0.95, 1.0]), np.array([False, True, True, True]))
    assert [(row.low, row.count, row.share) for row in rows] == [(0.0, 2, 0.5), (0.9, 2, 1.0)]
    assert rows[0].share_low < 0.5 < rows[0].share_high
    perfect = quality(np.array([0.0, 1.0]), np.array([False, True]))
    assert (perfect.ece, perfect.brier) == (0, 0)


def test_an_unfitted_curve_changes_nothing() -> None:
    scores = np.linspace(0, 1, 11)
    assert Curve("temperature")(scores) == pytest.approx(scores)
