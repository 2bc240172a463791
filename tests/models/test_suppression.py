"""Suppression keeps the same boxes on every device, and keeps images and labels apart."""

from __future__ import annotations

import pytest
import torch

from models import suppression
from models.suppression import suppress


def crowded(images: int, seed: int) -> torch.Tensor:
    """Predictions for 5 classes with many overlapping boxes, as a YOLO network gives them."""
    chance = torch.Generator().manual_seed(seed)
    centres = torch.rand((images, 2, 400), generator=chance) * 320
    sizes = torch.rand((images, 2, 400), generator=chance) * 90 + 5
    scores = torch.rand((images, 5, 400), generator=chance) ** 3
    return torch.cat((centres, sizes, scores), 1)


@pytest.mark.parametrize("seed", range(4))
def test_the_kernel_for_gpus_keeps_the_boxes_that_opencv_keeps(seed: int) -> None:
    predictions = crowded(6, seed)
    image, corners, scores, kinds = suppression._anchors(predictions, 5, 0.3)
    groups = image * 5 + kinds
    ours = suppression._best(corners, scores, groups, 0.45)
    kernels = suppression._best_on_device(corners, scores, groups, 0.45)
    assert len(ours) > 50
    assert sorted(ours.tolist()) == sorted(kernels.tolist())
    assert torch.equal(scores[ours], scores[kernels])


def test_boxes_of_other_images_and_labels_do_not_compete() -> None:
    box = torch.tensor([100.0, 100.0, 50.0, 50.0])
    predictions = torch.zeros((2, 6, 2))
    predictions[:, :4] = box[None, :, None]
    predictions[:, 4, 0] = 0.9
    predictions[:, 5, 1] = 0.8
    found = suppress(predictions, 2, 0.25, 0.5, 300)
    assert [boxes.classes.tolist() for boxes in found] == [[0, 1], [0, 1]]
    assert found[0].corners[0].tolist() == [75.0, 75.0, 125.0, 125.0]
