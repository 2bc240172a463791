"""Scores: named by the labels of one or more classifiers, between 0 and 1."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from analysed_photos import FILES, frame_of, photo

from models.catalog import Catalog, ModelCard, load_catalog
from models.device import Device
from models.weights import sha256_of
from operators.operator import OperatorError
from operators.scores import ScoresOperator

CPU = Device(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def default() -> ScoresOperator:
    made = ScoresOperator({}, CPU, load_catalog())
    made.setup()
    return made


def with_brightness(tmp_path: Path, label: str = "bright") -> Catalog:
    """The bundled models and a classifier that scores how bright a picture is."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.AvgPool1d(3 * 8 * 8))
    path = tmp_path / "brightness.torchscript"
    torch.jit.save(torch.jit.trace(network, torch.zeros(1, 3, 8, 8)), path)
    card = ModelCard(
        name="brightness",
        version="1",
        task="classification",
        weights=str(path),
        sha256=sha256_of(path),
        licence="MIT",
        format="torchscript",
        labels={0: label},
        input_size=(8, 8),
        options={"mean": [0, 0, 0], "std": [1, 1, 1]},
    )
    return Catalog([*load_catalog(), card])


def test_everyday_photos_score_low(default: ScoresOperator) -> None:
    frames = [frame_of(photo(name)) for name in FILES]
    default.process(frames)
    for frame in frames:
        assert frame.findings.scores.keys() == {"nsfw"}
        assert 0 <= frame.findings.scores["nsfw"] < 0.2
        assert frame.findings.models == {"scores": "open-nsfw@1.0.0"}


def test_a_picture_scores_the_same_alone_and_in_a_batch(default: ScoresOperator) -> None:
    together = [frame_of(photo(name)) for name in ("bus", "cat", "coffee")]
    default.process(together)
    alone = frame_of(photo("coffee"))
    default.process([alone])
    assert together[2].findings.scores["nsfw"] == pytest.approx(
        alone.findings.scores["nsfw"], abs=1e-4
    )


def test_several_classifiers_score_side_by_side(tmp_path: Path) -> None:
    options = {"models": ["open-nsfw", "brightness"], "batch": 1}
    both = ScoresOperator(options, CPU, with_brightness(tmp_path))
    both.setup()
    white = frame_of(torch.full((40, 30, 3), 255, dtype=torch.uint8))
    black = frame_of(torch.zeros((40, 30, 3), dtype=torch.uint8))
    both.process([white, black])
    assert white.findings.scores["bright"] == pytest.approx(1)
    assert black.findings.scores["bright"] == pytest.approx(0)
    assert "nsfw" in white.findings.scores
    assert white.findings.models == {
        "scores.open-nsfw": "open-nsfw@1.0.0",
        "scores.brightness": "brightness@1",
    }


def test_two_models_may_not_share_a_label(tmp_path: Path) -> None:
    catalog = with_brightness(tmp_path, label="nsfw")
    with pytest.raises(OperatorError, match="'open-nsfw' and 'brightness' both have the label"):
        ScoresOperator({"models": ["open-nsfw", "brightness"]}, CPU, catalog)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 4000, 3), (4000, 1, 3)])
def test_a_degenerate_picture_still_gets_its_score(
    default: ScoresOperator, shape: tuple[int, int, int]
) -> None:
    odd = frame_of(torch.zeros(shape, dtype=torch.uint8))
    default.process([odd])
    assert not odd.failed and 0 <= odd.findings.scores["nsfw"] <= 1


def test_a_frame_without_a_picture_fails_alone(default: ScoresOperator) -> None:
    cat, empty = frame_of(photo("cat")), frame_of(torch.zeros(0, 0, 3))
    default.process([empty, cat])
    assert empty.failure is not None and empty.failure.stage == "scores"
    assert cat.findings.scores


def test_wrong_settings_are_refused_by_name() -> None:
    with pytest.raises(OperatorError, match=r"unknown key 'model' \(did you mean 'models'\?\)"):
        ScoresOperator({"model": "open-nsfw"}, CPU, load_catalog())
