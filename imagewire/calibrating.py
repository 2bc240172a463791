"""From labels to a calibration file: each label of a model fitted, or refused with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from imagewire.calibration_labels import Scored
from models.calibrating import (
    Cut,
    Fit,
    Method,
    TooFewLabelsError,
    UselessScoresError,
    cut_for,
    fit,
)
from models.catalog import ModelCard
from models.weights import is_remote
from operators.calibration import SUFFIX, Calibration, LabelCalibration, Threshold


@dataclass(frozen=True, slots=True)
class Target:
    """What a threshold is wanted for: a precision or a recall, 0 to 1."""

    kind: Literal["precision", "recall"]
    value: float


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What became of the labels.

    Attributes:
        fits: by label.
        cuts: by label, for each target; `None` where no threshold reaches it.
        refused: label to why it has no calibration.
        skipped: why labels were left out, and how many.
    """

    calibration: Calibration
    fits: Mapping[str, Fit]
    cuts: Mapping[str, list[tuple[Target, Cut | None]]]
    refused: Mapping[str, str]
    skipped: Mapping[str, int]


def calibrate_labels(
    scored: Scored, card: ModelCard, method: Method | Literal["auto"], targets: Sequence[Target]
) -> Calibrated:
    """Fit every label that there are enough labels of."""
    fits: dict[str, Fit] = {}
    cuts: dict[str, list[tuple[Target, Cut | None]]] = {}
    refused: dict[str, str] = {}
    stored: dict[str, LabelCalibration] = {}
    for label in sorted(scored.scores):
        truth = np.array(scored.truth[label], bool)
        try:
            own = fit(np.array(scored.scores[label], float), truth, method)
        except (TooFewLabelsError, UselessScoresError) as error:
            refused[label] = str(error)
            continue
        fits[label] = own
        cuts[label] = [
            (target, cut_for(own.probabilities, truth, **{target.kind: target.value}))
            for target in targets
        ]
        stored[label] = LabelCalibration(
            method="isotonic" if own.curve.method == "isotonic" else "temperature",
            temperature=own.curve.temperature,
            bias=own.curve.bias,
            points=list(own.curve.points),
            thresholds=[_threshold(target, cut) for target, cut in cuts[label] if cut is not None],
        )
    calibration = Calibration(
        format=1, model=card.full_name, weights_sha256=card.sha256, labels=stored
    )
    return Calibrated(calibration, fits, cuts, refused, scored.skipped)


def default_file(card: ModelCard, folder: Path | None) -> Path:
    """In `folder` if there is one; else beside the model's weights where they are a file of the
    user's own, else here: weights inside a package go with its next version."""
    name = f"{card.name}-{card.version}{SUFFIX}"
    if folder is not None:
        return folder / name
    own = not card.weights.startswith("package:") and not is_remote(card.weights)
    if own and ":" not in card.weights:
        return Path(card.weights).expanduser().parent / name
    return Path(name)


def _threshold(target: Target, cut: Cut) -> Threshold:
    return Threshold(
        threshold=cut.threshold,
        low=cut.low,
        high=cut.high,
        target_precision=target.value if target.kind == "precision" else None,
        target_recall=target.value if target.kind == "recall" else None,
    )
