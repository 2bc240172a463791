"""What computing in bfloat16 costs in accuracy, beside float32 on the same pictures.

Four things that the default models are used for: characters read from rendered pages (ocr_set),
boxes and scores of the detector, the search of edited photos by their embedding, and the scores of
the classifier. Run as `python -m bench.precision_accuracy`; tests hold the bounds that the product
promises.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from bench.ocr_set import OcrPicture, error_rates, render
from imagewire.demo.photos import make_demo_set
from models.catalog import load_catalog
from models.device import Device, choose_device
from models.precision import Precision
from operators.embedding import EmbeddingOperator
from operators.findings import Detection
from operators.frame import Frame, Origin
from operators.objects import ObjectsOperator
from operators.operator import Operator
from operators.scores import ScoresOperator
from operators.text import TextOperator

Pixels = NDArray[np.uint8]
"""RGB, shape (height, width, 3)."""

_BATCH = 8


@dataclass(frozen=True, slots=True)
class BoxAgreement:
    """How the detector's findings agree.

    Attributes:
        detections: in float32, over all pictures.
        found: the share that the other precision finds as well: same label, overlap of at least
            half.
        added: how many the other has that float32 has not, as a share of `detections`.
        median_iou, least_iou: overlap of those found by both.
        largest_score_change: of those.
    """

    detections: int
    found: float
    added: float
    median_iou: float
    least_iou: float
    largest_score_change: float


@dataclass(frozen=True, slots=True)
class SearchAgreement:
    """How the embeddings agree.

    Attributes:
        least_cosine, median_cosine: between the two vectors of one picture.
        recall: for each precision the share of edited photos whose nearest photo is their original.
    """

    least_cosine: float
    median_cosine: float
    recall: tuple[float, float]


def devices(device: str = "cpu", lower: Precision = "bf16") -> tuple[Device, Device]:
    """Full and lower precision on one device."""
    return choose_device(device, "fp32"), choose_device(device, lower)


def characters(pictures: Sequence[OcrPicture], pair: tuple[Device, Device]) -> tuple[float, float]:
    """The share of wrong characters in each precision."""
    rates = []
    for device in pair:
        frames = _frames([picture.pixels for picture in pictures])
        _run(TextOperator({}, device, load_catalog()), frames)
        read = [[line.text for line in frame.findings.texts] for frame in frames]
        rates.append(error_rates(pictures, read)["all"])
    return rates[0], rates[1]


def boxes(pictures: Sequence[Pixels], pair: tuple[Device, Device]) -> BoxAgreement:
    """How well the detector agrees with itself."""
    found: list[list[list[Detection]]] = []
    for device in pair:
        frames = _frames(pictures)
        _run(ObjectsOperator({}, device, load_catalog()), frames)
        found.append([frame.findings.objects for frame in frames])
    overlaps, changes, total, added = [], [], 0, 0
    for full, lower in zip(*found, strict=True):
        left = list(lower)
        total += len(full)
        for one in full:
            same = [other for other in left if other.label == one.label]
            best = max(same, key=lambda other, one=one: _iou(one, other), default=None)
            if best is not None and _iou(one, best) >= 0.5:
                left.remove(best)
                overlaps.append(_iou(one, best))
                changes.append(abs(one.score - best.score))
        added += len(left)
    return BoxAgreement(
        detections=total,
        found=len(overlaps) / max(total, 1),
        added=added / max(total, 1),
        median_iou=float(np.median(overlaps)),
        least_iou=min(overlaps),
        largest_score_change=max(changes),
    )


def search(
    photos: Sequence[Pixels], edits: Sequence[tuple[Pixels, int]], pair: tuple[Device, Device]
) -> SearchAgreement:
    """How well embeddings agree. `edits`: pictures made of photos, each with its photo's index."""
    vectors = []
    for device in pair:
        frames = _frames([*photos, *(edit for edit, _ in edits)])
        _run(EmbeddingOperator({}, device, load_catalog()), frames)
        vectors.append(
            np.array(
                [frame.findings.embedding.vector for frame in frames if frame.findings.embedding]
            )
        )
    full, lower = vectors
    cosines = (full * lower).sum(axis=1)
    originals = np.array([original for _, original in edits])
    recall = []
    for either in (full, lower):
        nearest = (either[len(photos) :] @ either[: len(photos)].T).argmax(axis=1)
        recall.append(float((nearest == originals).mean()))
    return SearchAgreement(float(cosines.min()), float(np.median(cosines)), (recall[0], recall[1]))


def scores(pictures: Sequence[Pixels], pair: tuple[Device, Device]) -> float:
    """The largest change of any of the classifier's scores."""
    found = []
    for device in pair:
        frames = _frames(pictures)
        _run(ScoresOperator({}, device, load_catalog()), frames)
        found.append([frame.findings.scores for frame in frames])
    return max(
        abs(full[label] - lower[label])
        for full, lower in zip(*found, strict=True)
        for label in full
    )


def photos_and_edits() -> tuple[list[Pixels], list[tuple[Pixels, int]]]:
    """The demonstration's photos, and its edits of them with the index of each one's photo."""
    with tempfile.TemporaryDirectory(prefix="imagewire-accuracy-") as folder:
        images = [one for one in make_demo_set(Path(folder)) if one.kind in ("photo", "edit")]
        photos = [one for one in images if one.kind == "photo"]
        index = {photo.name: number for number, photo in enumerate(photos)}
        return (
            [_pixels(photo.path) for photo in photos],
            [
                (_pixels(edit.path), index[edit.origin])
                for edit in images
                if edit.kind == "edit" and edit.origin in index
            ],
        )


def _pixels(path: Path) -> Pixels:
    with Image.open(path) as picture:
        return np.array(ImageOps.exif_transpose(picture).convert("RGB"))


def _frames(pictures: Sequence[Pixels]) -> list[Frame]:
    return [
        Frame(str(n), "bench", 0, Origin("images", 0, n, 0), pixels=torch.from_numpy(pixels))
        for n, pixels in enumerate(pictures)
    ]


def _run(operator: Operator, frames: Sequence[Frame]) -> None:
    operator.setup()
    try:
        for frame in frames:
            if frame.pixels is not None:
                frame.pixels = frame.pixels.to(operator.device.torch_device)
        for start in range(0, len(frames), _BATCH):
            operator.process(frames[start : start + _BATCH])
    finally:
        operator.close()


def _iou(one: Detection, other: Detection) -> float:
    left, top = max(one.box[0], other.box[0]), max(one.box[1], other.box[1])
    right, bottom = min(one.box[2], other.box[2]), min(one.box[3], other.box[3])
    shared = max(0.0, right - left) * max(0.0, bottom - top)
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (one.box, other.box)]
    return shared / (sum(areas) - shared) if shared else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp16"))
    asked = parser.parse_args()
    pair = devices(asked.device, asked.precision)
    photos, edits = photos_and_edits()
    pictures = [*photos, *(edit for edit, _ in edits)]
    print(f"float32 and {asked.precision} on {asked.device}; {len(pictures)} pictures")
    agreement = boxes(pictures, pair)
    print(
        f"detector: {agreement.detections} boxes, {100 * agreement.found:.1f} % found by both, "
        f"{100 * agreement.added:.1f} % added; IoU median {agreement.median_iou:.4f}, least "
        f"{agreement.least_iou:.3f}; score changes by at most {agreement.largest_score_change:.3f}"
    )
    vectors = search(photos, edits, pair)
    print(
        f"embedding: cosine median {vectors.median_cosine:.5f}, least {vectors.least_cosine:.5f}; "
        f"recall@1 {vectors.recall[0]:.3f} and {vectors.recall[1]:.3f} over {len(edits)} edits"
    )
    print(f"classifier: scores change by at most {scores(pictures, pair):.4f}")
    wrong = characters(render(), pair)
    print(f"text: {100 * wrong[0]:.2f} % and {100 * wrong[1]:.2f} % of characters wrong")


if __name__ == "__main__":
    main()
