"""Embedding: unit vectors by which an edited copy is found among other photos."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from analysed_photos import FILES, frame_of, photo
from PIL import Image

from models.catalog import load_catalog
from models.device import Device
from operators.embedding import EmbeddingOperator
from operators.frame import Frame
from operators.operator import OperatorError

CPU = Device(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def default() -> EmbeddingOperator:
    made = EmbeddingOperator({}, CPU, load_catalog())
    made.setup()
    return made


def edited(pixels: torch.Tensor) -> torch.Tensor:
    """A cropped, smaller, strongly compressed copy."""
    picture = Image.fromarray(pixels.numpy())
    width, height = picture.size
    part = picture.crop((width // 10, height // 10, width, height)).resize((400, 300))
    encoded = io.BytesIO()
    part.save(encoded, "JPEG", quality=40)
    return torch.from_numpy(np.array(Image.open(encoded)))


def vectors(frames: list[Frame]) -> torch.Tensor:
    found = [frame.findings.embedding for frame in frames]
    return torch.tensor([embedding.vector for embedding in found if embedding is not None])


def test_an_edited_copy_is_nearer_than_any_other_photo(default: EmbeddingOperator) -> None:
    originals = [frame_of(photo(name)) for name in FILES]
    copies = [frame_of(edited(photo(name))) for name in FILES]
    default.process(originals)
    default.process(copies)
    similarity = vectors(copies) @ vectors(originals).T
    assert similarity.argmax(1).tolist() == list(range(len(FILES)))


def test_each_picture_becomes_a_unit_vector_of_a_named_model(default: EmbeddingOperator) -> None:
    frame = frame_of(photo("coffee"))
    default.process([frame])
    assert frame.findings.embedding is not None
    assert frame.findings.embedding.model == "efficientnet-lite0@0.1.0"
    assert len(frame.findings.embedding.vector) == default.dimension == 1280
    assert np.linalg.norm(frame.findings.embedding.vector) == pytest.approx(1, abs=1e-5)
    assert frame.findings.models == default.model_versions()
    assert default.model_versions() == {"embedding": "efficientnet-lite0@0.1.0"}


def test_a_picture_gets_the_same_vector_alone_and_in_a_batch_of_pieces() -> None:
    small = EmbeddingOperator({"batch": 2}, CPU, load_catalog())
    small.setup()
    together = [frame_of(photo(name)) for name in ("cat", "bus", "coffee")]
    small.process(together)
    alone = frame_of(photo("coffee"))
    small.process([alone])
    assert torch.allclose(vectors(together)[2], vectors([alone])[0], atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 4000, 3), (4000, 1, 3), (200, 12000, 3)])
def test_a_degenerate_picture_still_gets_its_vector(
    default: EmbeddingOperator, shape: tuple[int, int, int]
) -> None:
    odd = frame_of(torch.zeros(shape, dtype=torch.uint8))
    default.process([odd])
    assert not odd.failed
    assert torch.isfinite(vectors([odd])).all()


def test_a_frame_without_a_picture_fails_alone(default: EmbeddingOperator) -> None:
    cat, empty = frame_of(photo("cat")), frame_of(torch.zeros(5, 0, 3))
    default.process([empty, cat])
    assert empty.failure is not None and empty.failure.stage == "embedding"
    assert cat.findings.embedding is not None


def test_the_dimension_is_known_only_after_set_up() -> None:
    with pytest.raises(OperatorError, match="call setup"):
        _ = EmbeddingOperator({}, CPU, load_catalog()).dimension


def test_wrong_settings_are_refused_by_name() -> None:
    with pytest.raises(OperatorError, match=r"unknown key 'modell' \(did you mean 'model'\?\)"):
        EmbeddingOperator({"modell": "x"}, CPU, load_catalog())
