"""Fingerprint: PDQ, a hash that stays nearly the same when a picture is resized or recompressed.

PDQ (Facebook, "The TMK+PDQF video-hashing algorithm and the PDQ image-hashing algorithm", 2019)
blurs the brightness of a picture, takes 64 x 64 samples and hashes their cosine transform. pdqhash
spends nearly all of its time on the blur, in double loops that hold the interpreter lock: 4.8 ms
for 512 x 512 pixels. Blur and sampling are linear, so here they are two matrix products on the
frame's own device; pdqhash then gets the 64 x 64 samples, which takes it 0.05 ms. As in PDQ's own
command-line hasher, pictures with a side above 512 pixels are resized to 512 x 512 first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import msgspec
import numpy as np
import pdqhash
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from models.catalog import Catalog
from models.device import Device
from models.resizing import resized_alike, same_sized
from operators.findings import Fingerprint
from operators.frame import Frame
from operators.frame_pixels import pieces, pixels_of
from operators.least_size import LeastSize
from operators.operator import Operator
from operators.operator_options import checked

SAMPLES = 64
"""Samples along each side that PDQ transforms."""
LARGEST = 512
"""Pictures with a longer side are resized to a square of this many pixels, as PDQ's hasher does."""
BATCH = 64
"""Pictures that are sampled together on a GPU; on a processor each is sampled by itself."""
ALGORITHM = "pdq@1.0"
_LUMA = torch.tensor([0.299, 0.587, 0.114])
"""ITU-R BT.601 brightness, which PDQ prescribes."""


class FingerprintOptions(BaseModel):
    """The settings of the operator `fingerprint`: there are none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FingerprintOperator(Operator):
    """Adds the PDQ hash and its quality to the fingerprint, whose `content_id` decoding has set.

    A quality below 50 means that the picture has too little structure for its hash to say much.
    Hashes of the same picture differ in up to 31 of 256 bits, those of others in about 128.
    """

    name: ClassVar[str] = "fingerprint"
    depends_on_content_only: ClassVar[bool] = True

    def __init__(self, options: Mapping[str, Any], device: Device, catalog: Catalog) -> None:
        super().__init__(options, device, catalog)
        checked(self.name, options, FingerprintOptions)

    def process(self, frames: Sequence[Frame]) -> None:
        for piece in pieces(frames, self.name, BATCH):
            self._hash(piece)

    def _hash(self, frames: Sequence[Frame]) -> None:
        hashes = pdq_of_all([pixels_of(frame) for frame in frames])
        for frame, (digest, quality) in zip(frames, hashes, strict=True):
            known = frame.findings.fingerprint or Fingerprint(content_id="")
            frame.findings.fingerprint = msgspec.structs.replace(
                known, pdq=digest, pdq_quality=quality
            )
            frame.findings.models[self.name] = ALGORITHM

    def model_versions(self) -> dict[str, str]:
        return {self.name: ALGORITHM}

    def least_size(self) -> LeastSize:
        """Both sides: only then is a picture resized to the same square as its original."""
        return LeastSize(shorter=LARGEST + 1)


def pdq(pixels: torch.Tensor) -> tuple[str, int]:
    """The PDQ hash (64 hex digits, most significant bit first) and quality (0 to 100).

    Args:
        pixels: uint8 RGB, shape (height, width, 3), on any device.
    """
    return pdq_of_all([pixels])[0]


def pdq_of_all(pictures: Sequence[torch.Tensor]) -> list[tuple[str, int]]:
    """Hash and quality of each picture, as `pdq` gives them; the pictures are on one device."""
    hashes = []
    for grey in samples(pictures):
        bits, quality = pdqhash.compute(grey)
        digest = np.packbits(np.asarray(bits, np.uint8)).tobytes().hex()
        hashes.append((digest, int(quality)))
    return hashes


@torch.inference_mode()
def samples(pictures: Sequence[torch.Tensor]) -> NDArray[np.uint8]:
    """The blurred brightness at 64 x 64 places, as grey pictures of shape (N, 64, 64, 3)."""
    first = pictures[0]
    # A group is a few launches on CUDA; on a processor large batches would only leave the cache.
    groups = same_sized(pictures) if first.is_cuda else ([i] for i in range(len(pictures)))
    sampled = torch.empty((len(pictures), SAMPLES, SAMPLES), device=first.device)
    for positions in groups:
        height, width = (int(side) for side in pictures[positions[0]].shape[:2])
        if max(height, width) > LARGEST:
            height = width = LARGEST
        images = resized_alike([pictures[i] for i in positions], height, width)
        weights = _luma(first.device)
        brightness = torch.einsum("nchw,c->nhw", images.float(), weights)
        rows = _blur_and_sample(height, first.device)
        columns = _blur_and_sample(width, first.device)
        found = rows @ brightness @ columns.T
        for position, one in zip(positions, found, strict=True):
            sampled[position] = one
    grey = np.rint(sampled.cpu().numpy()).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.repeat(grey[:, :, :, None], 3, axis=3))


@lru_cache(maxsize=16)
def _luma(device: torch.device) -> torch.Tensor:
    return _LUMA.to(device)


@lru_cache(maxsize=1024)
def _blur_and_sample(size: int, device: torch.device) -> torch.Tensor:
    """The matrix, of shape (64, `size`), of PDQ's blur along one axis followed by its sampling.

    The blur is a running mean over about half the distance between samples, applied twice; at the
    ends the mean is over what is there.
    """
    if size == SAMPLES:
        return torch.eye(SAMPLES, device=device)
    window = (size + 2 * SAMPLES - 1) // (2 * SAMPLES)
    before = (window + 2) // 2 - 1
    positions = torch.arange(size)
    # An even window has one more pixel ahead than behind.
    ahead = positions[None, :] - positions[:, None]
    inside = ((ahead > -(window - before)) & (ahead <= before)).float()
    mean = inside / inside.sum(dim=1, keepdim=True)
    at = ((torch.arange(SAMPLES) + 0.5) * size / SAMPLES).long()
    return (mean @ mean)[at].contiguous().to(device)
