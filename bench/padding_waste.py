"""How much of what a network computes is padding when a feed mixes picture sizes.

Objects, embedding and scores bring every picture to one square of their own, so sizes do not matter
to them. The text detector looks at pictures in their own proportions: within a batch it puts those
of similar size on a shared canvas. Printed is what the canvases hold, beside what the pictures need
and beside one canvas for the whole batch. Run as `python -m bench.padding_waste`.
"""

from __future__ import annotations

import random
import statistics

import torch

from bench.photos import SIZES
from models.ppocr_detection import _FORWARD_PIXELS, _groups, _Scaled

MAX_SIDE = 960
UNLIKE = (
    *((640, 480), (480, 640), (1280, 720), (720, 1280), (1920, 1080), (4000, 3000)),
    *((800, 800), (500, 333), (333, 500), (1024, 768), (320, 240), (240, 320)),
)


def scaled(index: int, width: int, height: int) -> _Scaled:
    """A picture of that size as the detector gets it."""
    ratio = min(1.0, MAX_SIDE / max(width, height))
    shape = (3, max(1, round(height * ratio)), max(1, round(width * ratio)))
    return _Scaled(index, torch.empty(shape, dtype=torch.uint8), (height, width))


def waste(
    sizes: tuple[tuple[int, int], ...], batch: int, batches: int = 200
) -> tuple[float, float, float]:
    """Canvas ÷ need, one canvas ÷ need, and pictures in a forward pass; means over batches."""
    chance = random.Random(1)
    shared, single, together = [], [], []
    for _ in range(batches):
        items = [scaled(number, *chance.choice(sizes)) for number in range(batch)]
        need = sum(item.image.shape[1] * item.image.shape[2] for item in items)
        groups = [_canvas(group) for group in _groups(items, _FORWARD_PIXELS["cpu"])]
        shared.append(sum(groups) / need)
        single.append(_canvas(items) / need)
        together.append(batch / len(groups))
    return statistics.mean(shared), statistics.mean(single), statistics.mean(together)


def _canvas(items: list[_Scaled]) -> int:
    height = max(item.canvas[0] for item in items)
    return len(items) * height * max(item.canvas[1] for item in items)


def main() -> None:
    print("| feed | batch | canvas ÷ need | one canvas ÷ need | pictures a pass |")
    print("|---|---|---|---|---|")
    for name, sizes in (("VGA, 720p, 1080p", SIZES), ("12 sizes, both ways up", UNLIKE)):
        for batch in (8, 16, 64):
            shared, single, together = waste(sizes, batch)
            print(f"| {name} | {batch} | {shared:.3f} | {single:.2f} | {together:.1f} |")


if __name__ == "__main__":
    main()
