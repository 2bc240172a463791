"""What is lost when frames that look nearly the same take over the findings of another.

Sequences are rendered from real photos: a still camera with noise, a slow pan, a slow zoom, and a
still scene into which a line of text comes after a third of the time. Every frame is analysed in
full; then it is computed which frames `reuse.near_distance` would have skipped and how far their
own findings are from those they would have taken over. Run as `python -m bench.near_identical`.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from rapidfuzz.distance import Levenshtein

from imagewire.demo.photos import make_demo_set
from models.catalog import load_catalog
from models.device import choose_device
from operators.chain import OperatorChain
from operators.findings import Findings, ImageInfo
from operators.frame import Frame, Origin
from operators.near_identical import NearIdentical
from operators.policy import Policy
from operators.registry import build_operators

SIZE = (640, 480)
KINDS = ("noise", "pan", "zoom", "text comes")
DISTANCES = (4, 8, 12, 16, 24, 31)
SIGN = "PLATFORM 9 CLOSED UNTIL 17:45"


@dataclass(frozen=True, slots=True)
class Loss:
    """What a distance costs on sequences of one kind.

    Attributes:
        skipped: share of the frames that are not analysed.
        median_cosine, least_cosine: between a skipped frame's own embedding and the one it takes.
        characters: share of the characters in skipped frames that are wrong or missing.
        score_change: the largest.
        verdicts: share of the skipped frames whose verdict differs.
    """

    skipped: float
    median_cosine: float
    least_cosine: float
    characters: float
    score_change: float
    verdicts: float


def sequence(photo: Image.Image, kind: str, length: int, seed: int) -> Iterator[Image.Image]:
    """`length` frames of one camera, as JPEG of quality 85 would show them, at 10 a second."""
    dice = np.random.default_rng(seed)
    width, height = SIZE
    wide = ImageOps.fit(photo, (width * 3 // 2, height * 3 // 2), Image.Resampling.BICUBIC)
    font = ImageFont.truetype(
        str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"), 26
    )
    for number in range(length):
        if kind == "zoom":
            share = 1 - 0.01 * number
            box = (wide.width * (1 - share) / 2, wide.height * (1 - share) / 2)
            frame = wide.resize(SIZE, box=(*box, wide.width - box[0], wide.height - box[1]))
        else:
            x = 4 * number if kind == "pan" else 60
            frame = wide.crop((x, 60, x + width, 60 + height))
        if kind == "text comes" and number >= length // 3:
            ImageDraw.Draw(frame).text(
                (40, 220), SIGN, font=font, fill="white", stroke_width=2, stroke_fill="black"
            )
        noise = dice.normal(0, 3, (height, width, 3))
        pixels = np.clip(np.asarray(frame) + noise, 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=85)
        yield Image.open(file).convert("RGB")


def analysed(photos: Sequence[Image.Image], kind: str, length: int, device: str) -> list[Frame]:
    """Every frame of a sequence from each photo, each photo being a feed, with all its findings."""
    chain = OperatorChain(
        build_operators({}, choose_device(device), load_catalog(())), Policy.load(None)
    )
    chain.setup()
    frames = []
    try:
        for camera, photo in enumerate(photos):
            batch = []
            for picture in sequence(photo, kind, length, camera):
                origin = Origin("images", camera, len(batch), 0)
                frame = Frame(origin.derived_id(), f"camera-{camera}", 0, origin)
                frame.pixels = torch.from_numpy(np.array(picture)).to(
                    choose_device(device).torch_device
                )
                frame.findings.image = ImageInfo(*SIZE, "jpeg", 0)
                batch.append(frame)
            for start in range(0, len(batch), 8):
                chain.process(batch[start : start + 8])
            frames += batch
    finally:
        chain.close()
    return frames


def loss(frames: Sequence[Frame], distance: int, in_a_row: int = 30) -> Loss:
    """What skipping at `distance` would have cost on frames that were all analysed."""
    alike = NearIdentical(distance, in_a_row).alike(frames)
    cosines, wrong, total, changes, verdicts = [], 0, 0, [], 0
    for frame, likeness in alike.items():
        own, taken = frame.findings, likeness.reference.findings
        if own.embedding is not None and taken.embedding is not None:
            cosines.append(float(np.dot(own.embedding.vector, taken.embedding.vector)))
        mine, theirs = _text(own), _text(taken)
        wrong += Levenshtein.distance(mine, theirs)
        total += max(len(mine), len(theirs))
        changes += [abs(own.scores[label] - taken.scores.get(label, 0.0)) for label in own.scores]
        action = own.verdict.action if own.verdict else ""
        verdicts += action != (taken.verdict.action if taken.verdict else "")
    return Loss(
        skipped=len(alike) / len(frames),
        median_cosine=float(np.median(cosines)) if cosines else 1.0,
        least_cosine=min(cosines, default=1.0),
        characters=wrong / total if total else 0.0,
        score_change=max(changes, default=0.0),
        verdicts=verdicts / len(alike) if alike else 0.0,
    )


def _text(findings: Findings) -> str:
    return "".join("".join(line.text.split()) for line in findings.texts)


def load(count: int) -> list[Image.Image]:
    """The first photos of the demonstration's set."""
    with tempfile.TemporaryDirectory(prefix="imagewire-near-") as folder:
        paths = [one.path for one in make_demo_set(Path(folder)) if one.kind == "photo"][:count]
        return [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in paths]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=8)
    parser.add_argument("--length", type=int, default=30, help="frames in a sequence")
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    photos = load(asked.photos)
    print(
        "| sequence | distance | skipped | cosine median / least | characters | score | verdicts |"
    )
    print("|---|---|---|---|---|---|---|")
    for kind in KINDS:
        frames = analysed(photos, kind, asked.length, asked.device)
        for distance in DISTANCES:
            cost = loss(frames, distance)
            print(
                f"| {kind} | {distance} | {100 * cost.skipped:.0f} % | "
                f"{cost.median_cosine:.3f} / {cost.least_cosine:.3f} | "
                f"{100 * cost.characters:.1f} % | {cost.score_change:.3f} | "
                f"{100 * cost.verdicts:.1f} % |",
                flush=True,
            )


if __name__ == "__main__":
    main()
