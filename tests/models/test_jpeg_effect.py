"""The effect of JPEG computed by torch is the effect of libjpeg."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from models.catalog import Catalog
from models.classifiers import load_classifier
from models.device import Device
from models.jpeg_effect import through_jpeg
from models.resizing import resized


def by_libjpeg(images: torch.Tensor, quality: int) -> torch.Tensor:
    decoded = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        decoded.append(torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1))
    return torch.stack(decoded)


@pytest.mark.parametrize("quality", [30, 75, 90])
@pytest.mark.parametrize("size", [(256, 256), (250, 243)])
def test_photos_lose_what_libjpeg_takes_from_them(
    photos: dict[str, torch.Tensor], quality: int, size: tuple[int, int]
) -> None:
    images = torch.stack([resized(pixels, *size) for pixels in photos.values()])
    wanted, found = by_libjpeg(images, quality).int(), through_jpeg(images, quality).int()
    lost = (wanted - images.int()).abs().float().mean()
    assert (wanted - found).abs().float().mean() < 0.25 * lost


def test_open_nsfw_scores_photos_as_after_libjpeg(
    photos: dict[str, torch.Tensor], catalog: Catalog, float32: Device
) -> None:
    classifier = load_classifier(catalog.get("open-nsfw"), float32)
    images = torch.stack([resized(pixels, 256, 256) for pixels in photos.values()])

    def scores(batch: torch.Tensor) -> torch.Tensor:
        return classifier.scores(batch[:, :, 16:240, 16:240])

    wanted, found = scores(by_libjpeg(images, 75)), scores(through_jpeg(images, 75))
    assert (wanted - found).abs().max() < 0.01
