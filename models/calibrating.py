"""Learn from labels what a network's scores are worth.

Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", 2017) stretches or
compresses the logits by one number, and Platt scaling shifts them besides; both need few labels.
Isotonic regression takes any rising curve, and needs many. All of them keep the order of the
scores, so that nothing is ranked differently afterwards. How good a calibration is, is measured on
labels that it has not seen, by cross-validation. scikit-learn does the fitting.

A score of exactly 0 says that the network gave none: a detector reports no box below its
threshold. It stays 0, and counts where recall is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

Method = Literal["temperature", "platt", "isotonic"]
METHODS: tuple[Method, ...] = ("temperature", "platt", "isotonic")
"""From the simplest to the one that needs most labels."""

Scores = NDArray[np.float64]
Truth = NDArray[np.bool_]

LEAST_OF_EACH = 20
"""Labels that say yes, and as many that say no, for a curve of one or two numbers. With 20 the 95 %
interval of a share is still 0.4 wide; with fewer there is nothing to measure."""
LEAST_FOR_ISOTONIC = 100
"""Of each, for a curve of any form."""
AUTO_ISOTONIC = 1000
"""From so many labels on isotonic regression is tried unasked: below, it is prone to overfit
(scikit-learn's user guide, "Probability calibration")."""
FOLDS = 5
BINS = 10
"""Of equal width, for the reliability table and the expected calibration error."""
_SEED = 20_171_706
"""Of the split into folds, so that the same labels always give the same file."""
_EDGE = 1e-7
_PENALTY = 1e4
"""scikit-learn's C: so weak that it only keeps labels that scores separate perfectly from driving
the temperature to 0."""
_Z = 1.959964


class TooFewLabelsError(Exception):
    """There are not enough labels of a kind; the message says how many more are needed."""


class UselessScoresError(Exception):
    """The scores do not rise with what is true, so there is nothing to calibrate."""


@dataclass(frozen=True, slots=True)
class Curve:
    """From scores to probabilities.

    Attributes:
        temperature, bias: sigmoid((logit(score) + bias) / temperature).
        points: (score, probability), both rising, of isotonic regression.
    """

    method: Method
    temperature: float = 1.0
    bias: float = 0.0
    points: tuple[tuple[float, float], ...] = ()

    def __call__(self, scores: Scores) -> Scores:
        """Probabilities; 0 and 1 stay what they are but for isotonic regression, which moves 1."""
        if self.method == "isotonic":
            xs, ys = zip(*self.points, strict=True)
            curved = np.interp(scores, xs, ys)
            return np.where(scores <= 0, 0.0, curved)
        found = _sigmoid((_logit(scores) + self.bias) / self.temperature)
        return np.where((scores <= 0) | (scores >= 1), scores, found)


@dataclass(frozen=True, slots=True)
class Quality:
    """How far probabilities are from what is true.

    Attributes:
        ece: expected calibration error over `BINS` bins of equal width.
        brier: mean squared difference.
        log_loss: mean negative logarithm of the probability of what is true.
    """

    ece: float
    brier: float
    log_loss: float


@dataclass(frozen=True, slots=True)
class Bin:
    """One row of a reliability table: the scores in [low, high), how many they are, their mean, and
    the share of them that is true with its 95 % interval (Wilson)."""

    low: float
    high: float
    count: int
    mean: float
    share: float
    share_low: float
    share_high: float


@dataclass(frozen=True, slots=True)
class Cut:
    """The lowest probability from which on a target is reached, and what was measured there.

    Attributes:
        threshold: images with this calibrated probability or more are taken.
        low, high: 95 % interval (Wilson) of the precision, or the recall, that was asked for.
    """

    threshold: float
    precision: float
    recall: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Fit:
    """A calibration of one label, and what it changes.

    Attributes:
        before: of the scores themselves.
        after: of the calibrated probabilities, each by a curve that had not seen its label.
        probabilities: by the curve from all labels, in the order of the scores.
    """

    curve: Curve
    before: Quality
    after: Quality
    before_bins: tuple[Bin, ...]
    after_bins: tuple[Bin, ...]
    yes: int
    no: int
    probabilities: Scores


def fit(scores: Scores, truth: Truth, method: Method | Literal["auto"] = "auto") -> Fit:
    """Learn the curve of one label.

    Args:
        scores: shape (N,), 0 to 1; 0 where the network gave none.
        truth: shape (N,).
        method: `auto` takes what has the lowest log loss in cross-validation.

    Raises:
        TooFewLabelsError, UselessScoresError
    """
    scored = scores > 0
    _check_enough(truth[scored], method)
    tried: dict[Method, Scores] = {}
    candidates = _candidates(truth[scored], method)
    for name in candidates:
        tried[name] = _cross_validated(scores[scored], truth[scored], _FITTERS[name])
    chosen = min(candidates, key=lambda name: _log_loss(tried[name], truth[scored]))
    curve = _FITTERS[chosen](scores[scored], truth[scored])
    unseen = np.zeros_like(scores)
    unseen[scored] = tried[chosen]
    return Fit(
        curve=curve,
        before=quality(scores, truth),
        after=quality(unseen, truth),
        before_bins=reliability(scores, truth),
        after_bins=reliability(unseen, truth),
        yes=int(truth.sum()),
        no=int((~truth).sum()),
        probabilities=curve(scores),
    )


def quality(probabilities: Scores, truth: Truth) -> Quality:
    """How far `probabilities` are from `truth`."""
    rows = reliability(probabilities, truth)
    gaps = sum(row.count * abs(row.mean - row.share) for row in rows)
    return Quality(
        ece=gaps / max(len(truth), 1),
        brier=float(np.mean((probabilities - truth) ** 2)),
        log_loss=_log_loss(probabilities, truth),
    )


def reliability(probabilities: Scores, truth: Truth) -> tuple[Bin, ...]:
    """The bins that are not empty, from low to high."""
    places = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    rows = []
    for place in range(BINS):
        own = places == place
        if count := int(own.sum()):
            right = int(truth[own].sum())
            low, high = wilson(right, count)
            mean = float(probabilities[own].mean())
            edges = place / BINS, (place + 1) / BINS
            rows.append(Bin(*edges, count, mean, right / count, low, high))
    return tuple(rows)


def cut_for(
    probabilities: Scores,
    truth: Truth,
    *,
    precision: float | None = None,
    recall: float | None = None,
) -> Cut | None:
    """Where to cut for one of the two targets; `None` if no cut reaches it.

    For a precision the lowest such cut, which takes most images; for a recall the highest, which
    takes fewest. Only probabilities above 0 are cuts.
    """
    if (precision is None) == (recall is None):
        raise ValueError("one target is needed: a precision or a recall")
    order = np.argsort(-probabilities, kind="stable")
    ordered, right = probabilities[order], np.cumsum(truth[order])
    # Images of one probability are taken together or not at all.
    last = np.append(ordered[1:] < ordered[:-1], True) & (ordered > 0)
    taken = np.flatnonzero(last)
    positives = int(truth.sum())
    if not len(taken) or not positives:
        return None
    precisions, recalls = right[taken] / (taken + 1), right[taken] / positives
    if precision is not None:
        reached = np.flatnonzero(precisions >= precision - 1e-12)
        at = reached[-1] if len(reached) else None
    else:
        reached = np.flatnonzero(recalls >= (recall or 0.0) - 1e-12)
        at = reached[0] if len(reached) else None
    if at is None:
        return None
    place, good = int(taken[at]), int(right[taken[at]])
    low, high = wilson(good, place + 1 if precision is not None else positives)
    return Cut(float(ordered[place]), float(precisions[at]), float(recalls[at]), low, high)


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927), which holds for few trials and near 0 and 1."""
    if not count:
        return 0.0, 1.0
    share, square = right / count, _Z * _Z
    middle = share + square / (2 * count)
    margin = _Z * math.sqrt(share * (1 - share) / count + square / (4 * count * count))
    scale = 1 + square / count
    return max(0.0, (middle - margin) / scale), min(1.0, (middle + margin) / scale)


def _check_enough(truth: Truth, method: Method | Literal["auto"]) -> None:
    least = LEAST_FOR_ISOTONIC if method == "isotonic" else LEAST_OF_EACH
    yes = int(truth.sum())
    no = len(truth) - yes
    missing = [
        f"{least - count} more that say {word}"
        for word, count in (("yes", yes), ("no", no))
        if count < least
    ]
    if missing:
        raise TooFewLabelsError(
            f"{yes} labels with a score say yes and {no} say no, and "
            f"{least} of each are needed; label {' and '.join(missing)}"
        )


def _candidates(truth: Truth, method: Method | Literal["auto"]) -> Sequence[Method]:
    if method != "auto":
        return (method,)
    yes = int(truth.sum())
    many = len(truth) >= AUTO_ISOTONIC and min(yes, len(truth) - yes) >= LEAST_FOR_ISOTONIC
    return METHODS if many else ("temperature", "platt")


def _cross_validated(
    scores: Scores, truth: Truth, fitter: Callable[[Scores, Truth], Curve]
) -> Scores:
    """The probability of each score by a curve from the other folds."""
    found = np.zeros_like(scores)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=_SEED)
    for seen, unseen in folds.split(scores, truth):
        found[unseen] = fitter(scores[seen], truth[seen])(scores[unseen])
    return found


def _fit_temperature(scores: Scores, truth: Truth) -> Curve:
    slope, _ = _logistic(scores, truth, shifted=False)
    return Curve("temperature", temperature=1 / slope)


def _fit_platt(scores: Scores, truth: Truth) -> Curve:
    slope, shift = _logistic(scores, truth, shifted=True)
    return Curve("platt", temperature=1 / slope, bias=shift / slope)


def _logistic(scores: Scores, truth: Truth, shifted: bool) -> tuple[float, float]:
    """Slope and shift of the logits: the slope is one over the temperature."""
    model = LogisticRegression(C=_PENALTY, fit_intercept=shifted, max_iter=1000)
    model.fit(_logit(scores)[:, None], truth)
    slope = float(model.coef_[0, 0])
    if slope <= 1e-6:
        raise UselessScoresError(
            "its scores are no higher where the label is true; check that the labels are about "
            "this model's label, and which way round they are"
        )
    return slope, float(model.intercept_[0]) if shifted else 0.0


def _fit_isotonic(scores: Scores, truth: Truth) -> Curve:
    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    model.fit(scores, truth.astype(float))
    points: list[tuple[float, float]] = []
    for x, y in zip(model.X_thresholds_.tolist(), model.y_thresholds_.tolist(), strict=True):
        # Two scores can be nearer to each other than a JSON reader tells apart.
        if not points or x > points[-1][0]:
            points.append((x, max(min(y, 1.0), points[-1][1] if points else 0.0)))
    if points[-1][1] - points[0][1] < 1e-9:
        raise UselessScoresError(
            "its scores are no higher where the label is true; check that the labels are about "
            "this model's label, and which way round they are"
        )
    return Curve("isotonic", points=tuple(points))


_FITTERS: dict[Method, Callable[[Scores, Truth], Curve]] = {
    "temperature": _fit_temperature,
    "platt": _fit_platt,
    "isotonic": _fit_isotonic,
}


def _log_loss(probabilities: Scores, truth: Truth) -> float:
    sure = np.clip(np.where(truth, probabilities, 1 - probabilities), _EDGE, 1.0)
    return float(-np.log(sure).mean())


def _logit(scores: Scores) -> Scores:
    inside = np.clip(scores, _EDGE, 1 - _EDGE)
    found: Scores = np.log(inside) - np.log1p(-inside)
    return found


def _sigmoid(values: Scores) -> Scores:
    found: Scores = 1 / (1 + np.exp(-np.clip(values, -700, 700)))
    return found
