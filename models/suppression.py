"""From a detection network's raw output to boxes: thresholds and non-maximum suppression.

The whole batch is suppressed in one call, on the device of the network: on CUDA with torchvision's
kernel, on a processor with OpenCV. Ultralytics' own function works image by image and gives up
after a time limit, which on a busy machine silently leaves the last images of a batch without
detections. On a processor torchvision's is no quicker than OpenCV's, and importing torchvision
draws in torch's compiler: 5 to 10 seconds at start.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import torch


@dataclass(frozen=True, slots=True)
class Boxes:
    """What was found in one image, best first.

    Attributes:
        corners: float32, shape (N, 4): x1, y1, x2, y2 in pixels of the network's input.
        scores: float32, shape (N,).
        classes: int64, shape (N,).
    """

    corners: torch.Tensor
    scores: torch.Tensor
    classes: torch.Tensor

    def __len__(self) -> int:
        return len(self.scores)


def suppress(
    predictions: torch.Tensor,
    class_count: int,
    confidence: float,
    iou: float,
    max_detections: int,
    classes: torch.Tensor | None = None,
    end_to_end: bool = False,
) -> list[Boxes]:
    """Keep the best boxes of each image.

    Args:
        predictions: shape (B, 4 + classes + extra, anchors): centre x, centre y, width, height and
            a score for each class, as YOLO networks give it; or, from networks that suppress
            duplicates themselves, (B, rows, 6 + extra): x1, y1, x2, y2, score, class.
        class_count: how many classes the network knows; further channels (masks, key points) are
            ignored.
        confidence: boxes must score higher than this.
        iou: of two boxes of one class that overlap more than this, the better one stays.
        max_detections: kept for each image at most.
        classes: int64; boxes of other classes are dropped before anything is counted.
        end_to_end: which of the two `predictions` are.

    Returns:
        One `Boxes` for each image, on the CPU.
    """
    if end_to_end:
        candidates = _rows(predictions, confidence)
    else:
        candidates = _anchors(predictions, class_count, confidence)
    image, corners, scores, kinds = candidates
    if classes is not None:
        wanted = torch.isin(kinds, classes.to(kinds.device))
        image, corners, scores, kinds = (v[wanted] for v in (image, corners, scores, kinds))
    if end_to_end:
        kept = scores.argsort(descending=True, stable=True)
    else:  # neighbours compete only within their image and class
        groups = image * class_count + kinds
        best = _best_on_device if scores.is_cuda else _best
        kept = best(corners, scores, groups, iou)
    # One copy from the device: each would wait for everything before it.
    columns = (image[:, None], scores[:, None], kinds[:, None], corners)
    rows = torch.cat([column.to(torch.float32) for column in columns], 1)[kept].cpu()
    image, scores, kinds, corners = rows[:, 0].long(), rows[:, 1], rows[:, 2].long(), rows[:, 3:]
    found = []
    for index in range(len(predictions)):
        own = (image == index).nonzero().flatten()[:max_detections]
        found.append(Boxes(corners[own], scores[own], kinds[own]))
    return found


Candidates = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""Image index, corners, score and class of each candidate."""


def _anchors(predictions: torch.Tensor, class_count: int, confidence: float) -> Candidates:
    scores, kinds = predictions[:, 4 : 4 + class_count].float().max(1)
    image, anchor = (scores > confidence).nonzero(as_tuple=True)
    centre = predictions[image, :2, anchor].float()
    half = predictions[image, 2:4, anchor].float() / 2
    corners = torch.cat((centre - half, centre + half), 1)
    return image, corners, scores[image, anchor], kinds[image, anchor]


def _rows(predictions: torch.Tensor, confidence: float) -> Candidates:
    image, row = (predictions[..., 4] > confidence).nonzero(as_tuple=True)
    found = predictions[image, row].float()
    return image, found[:, :4], found[:, 4], found[:, 5].long()


def _best(
    corners: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, iou: float
) -> torch.Tensor:
    """Indices of the boxes that stay, best first; only boxes of one group compete."""
    if not len(scores):
        return torch.zeros(0, dtype=torch.int64)
    rectangles = torch.cat((corners[:, :2], corners[:, 2:] - corners[:, :2]), 1)
    kept = cv2.dnn.NMSBoxesBatched(rectangles.tolist(), scores.tolist(), groups.tolist(), 0.0, iou)
    return torch.as_tensor(kept, dtype=torch.int64).flatten()


def _best_on_device(
    corners: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, iou: float
) -> torch.Tensor:
    """What `_best` says, computed by torchvision on the boxes' own device.

    Groups are moved apart, so that no two of them overlap. In float64 that costs no precision: the
    overlaps are those of the boxes as they are.
    """
    if not len(scores):
        return torch.zeros(0, dtype=torch.int64, device=scores.device)
    from torchvision.ops import nms

    exact = corners.double()
    apart = groups.double() * (exact.max() - exact.min() + 1.0)
    kept: torch.Tensor = nms(exact + apart[:, None], scores.double(), iou)
    return kept
