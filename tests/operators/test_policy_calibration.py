"""What reading and applying a calibration promises."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.calibration import (
    Calibration,
    CalibrationError,
    LabelCalibration,
    Threshold,
    calibrated_scores,
    read_calibration,
    write_calibration,
)


def document(**labels: Any) -> dict[str, Any]:
    return {"format": 1, "model": "open_nsfw", "weights_sha256": "ab" * 32, "labels": labels}


def written(tmp_path: Path, content: Any) -> Path:
    file = tmp_path / "model.calibration.json"
    file.write_text(json.dumps(content))
    return file


def test_temperature_scaling_divides_the_logit() -> None:
    own = LabelCalibration(method="temperature", temperature=2.0)
    assert own.probability(0.9) == pytest.approx(1 / (1 + math.exp(-math.log(9) / 2)))
    assert own.probability(0.5) == 0.5
    assert (own.probability(0.0), own.probability(1.0)) == (0.0, 1.0)


def test_isotonic_regression_goes_straight_from_point_to_point() -> None:
    own = LabelCalibration(method="isotonic", points=[(0.2, 0.1), (0.6, 0.3), (0.8, 1.0)])
    for score, probability in ((0.0, 0.1), (0.2, 0.1), (0.4, 0.2), (0.6, 0.3), (0.7, 0.65)):
        assert own.probability(score) == pytest.approx(probability)
    assert own.probability(1.0) == 1.0


@given(st.floats(0, 1), st.floats(0, 1), st.floats(1e-6, 1e6), st.floats(-50, 50))
def test_a_higher_score_never_becomes_a_lower_probability(
    one: float, other: float, temperature: float, bias: float
) -> None:
    own = LabelCalibration(method="temperature", temperature=temperature, bias=bias)
    low, high = sorted((one, other))
    assert 0 <= own.probability(low) <= own.probability(high) <= 1


def test_what_was_written_is_read(tmp_path: Path) -> None:
    calibration = Calibration(
        format=1,
        model="open_nsfw",
        weights_sha256="ab" * 32,
        labels={
            "nsfw": LabelCalibration(
                method="temperature",
                temperature=1.5,
                thresholds=[Threshold(target_precision=0.95, threshold=0.8, low=0.7, high=0.9)],
            )
        },
    )
    write_calibration(calibration, tmp_path / "a.json")
    assert read_calibration(tmp_path / "a.json") == calibration


def test_another_model_has_no_calibrated_scores(tmp_path: Path) -> None:
    file = written(tmp_path, document(nsfw={"method": "temperature", "temperature": 2.0}))
    calibration = read_calibration(file)
    scores = {"nsfw": 0.9, "other": 0.5}
    assert set(calibrated_scores([calibration], scores, ["open_nsfw@1.0"])) == {"nsfw"}
    assert calibrated_scores([calibration], scores, ["my_nsfw@1.0"]) == {}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"format": 2}, "format"),
        ([], "object"),
        (document(nsfw={"method": "temperature", "temperature": 0}), "above 0"),
        (document(nsfw={"method": "isotonic", "points": []}), "empty"),
        (document(nsfw={"method": "isotonic", "points": [[0.5, 0.5], [0.4, 0.6]]}), "rise"),
        (document(nsfw={"method": "isotonic", "points": [[0.5, 1.5]]}), "1.0"),
        (document(nsfw={"method": "magic"}), "magic"),
    ],
)
def test_a_wrong_file_is_refused_by_name_and_reason(
    tmp_path: Path, content: Any, complaint: str
) -> None:
    file = written(tmp_path, content)
    with pytest.raises(CalibrationError, match=complaint) as refused:
        read_calibration(file)
    assert str(file) in str(refused.value)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "huge.json"
    file.write_bytes(b" " * 5_000_000)
    with pytest.raises(CalibrationError, match="larger than"):
        read_calibration(file)
