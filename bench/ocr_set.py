"""Thirty rendered pictures with known text, and the error with which they are read.

They show what a feed shows: clean pages, small print, low contrast, lines turned by 5, 15 and 90
degrees, text over photos, blurred and hard-compressed JPEGs. The set is rendered from a fixed seed
with the fonts that matplotlib brings, so that the accuracy test and the benchmark see the same
pictures on every machine. Run as a script it prints the error of each kind and the speed.
"""

from __future__ import annotations

import argparse
import io
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from rapidfuzz import fuzz
from rapidfuzz.distance import Levenshtein
from skimage import data

SIZE = (960, 640)
FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Italic.ttf",
    "DejaVuSansMono.ttf",
)
KINDS = (
    ("clean", 6),
    ("small", 5),
    ("low contrast", 4),
    ("turned 5", 4),
    ("turned 15", 3),
    ("turned 90", 2),
    ("photo", 4),
    ("blurred jpeg", 2),
)
_WORD_LIST = (
    "arrival bakery balcony bicycle bridge camera canal cashier ceiling central charge circle "
    "closed counter courier crossing customs daylight deposit discount dispatch district draft "
    "elevator emergency engine entrance evening express factory ferry fragile garden gallery "
    "harbour hospital inspection invoice island journal junction kitchen ladder lantern library "
    "loading market material message monitor morning museum notice number office opening order "
    "package parking passage payment platform police poster prohibited quality quarter railway "
    "receipt refund repair reserved river safety school screen season section sensor service "
    "shelter signal station storage stream subject summer supply terminal ticket timetable tower "
    "traffic transfer tunnel urgent vehicle village visitor warehouse warning weather window zone"
)
WORDS = _WORD_LIST.split()


@dataclass(frozen=True)
class OcrPicture:
    """One picture: `pixels` is uint8 RGB (height, width, 3), `lines` what stands in it."""

    kind: str
    pixels: NDArray[np.uint8]
    lines: tuple[str, ...]


def render(seed: int = 2024) -> list[OcrPicture]:
    """The set; the same for the same seed."""
    chance = random.Random(seed)
    return [_picture(kind, number, chance) for kind, count in KINDS for number in range(count)]


def _words(chance: random.Random, count: int) -> str:
    parts = []
    for _ in range(count):
        draw = chance.random()
        if draw < 0.12:
            parts.append(str(chance.randint(1, 99_999)))
        elif draw < 0.18:
            parts.append(f"${chance.randint(1, 999)}.{chance.randint(0, 99):02d}")
        elif draw < 0.24:
            letter = chance.choice("ABCDEFGHKLMNPRSTX")
            parts.append(f"{letter}{chance.randint(10, 99)}-{chance.randint(100, 999)}")
        else:
            word = chance.choice(WORDS)
            parts.append(chance.choice((word, word.capitalize(), word.upper())))
    return " ".join(parts)


def _picture(kind: str, number: int, chance: random.Random) -> OcrPicture:
    width, height = SIZE
    small = kind == "small"
    size = 13 if small else chance.choice((22, 28, 34, 40))
    paper, ink = (255, 255, 255), (20, 20, 20)
    image = Image.new("RGB", SIZE, paper)
    outline: tuple[int, int, int] | None = None
    if kind == "low contrast":
        paper, ink = (150, 155, 150), (118, 122, 120)
        image = Image.new("RGB", SIZE, paper)
    elif kind == "photo":
        photo = (data.coffee, data.astronaut, data.chelsea, data.rocket)[number % 4]()
        image = Image.fromarray(photo).resize(SIZE)
        ink = chance.choice(((255, 255, 255), (255, 255, 0), (10, 10, 10)))
        outline = (0, 0, 0) if sum(ink) > 300 else (255, 255, 255)
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    font = ImageFont.truetype(str(folder / chance.choice(FONTS)), size)
    draw = ImageDraw.Draw(image)
    most = max(2, int(width * 0.8 / (size * 5.2)))
    lines: list[str] = []
    y = 70
    for _ in range(14 if small else chance.randint(4, 8)):
        if y + size * 1.5 > height - 60:
            break
        line = _words(chance, most if small else chance.randint(2, most))
        while draw.textlength(line, font=font) > width * 0.8:
            line = line.rsplit(" ", 1)[0]
        if outline is None:
            draw.text((90, y), line, font=font, fill=ink)
        else:
            draw.text((90, y), line, font=font, fill=ink, stroke_width=2, stroke_fill=outline)
        lines.append(line)
        y += int(size * 1.6)
    return OcrPicture(kind, _photographed(image, kind, paper, chance), tuple(lines))


def _photographed(
    image: Image.Image, kind: str, paper: tuple[int, int, int], chance: random.Random
) -> NDArray[np.uint8]:
    if kind == "turned 5":
        angle = chance.choice((-6, 4, 5))
        image = image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=paper)
    elif kind == "turned 15":
        angle = chance.choice((-15, 15))
        image = image.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=paper)
    elif kind == "turned 90":
        image = image.rotate(chance.choice((90, 270)), expand=True)
    elif kind == "blurred jpeg":
        image = image.filter(ImageFilter.GaussianBlur(1.2))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=25 if kind == "blurred jpeg" else 90)
    return np.array(Image.open(buffer).convert("RGB"))


def errors(picture: OcrPicture, read: Sequence[str]) -> tuple[int, int]:
    """Wrong characters and all characters of a picture, spaces left out.

    Each line is compared with the part of what was read that is most like it, so that the order of
    lines and the joining of words do not count, but every missing or wrong character does.
    """
    found = "".join("".join(read).split())
    wrong = total = 0
    for line in picture.lines:
        wanted = "".join(line.split())
        total += len(wanted)
        wrong += _distance(wanted, found)
    return wrong, total


def _distance(wanted: str, found: str) -> int:
    worst = len(wanted)
    if len(found) < len(wanted):
        return min(worst, Levenshtein.distance(wanted, found))
    near = fuzz.partial_ratio_alignment(wanted, found)
    if near is None:
        return worst
    # The alignment has the length of the line; a letter lost or gained moves its ends.
    return min(
        Levenshtein.distance(wanted, found[start:end])
        for start in range(max(0, near.dest_start - 2), near.dest_start + 3)
        for end in range(max(start, near.dest_end - 2), near.dest_end + 3)
    )


def error_rates(pictures: Sequence[OcrPicture], read: Sequence[Sequence[str]]) -> dict[str, float]:
    """Share of wrong characters for each kind, and for `all`."""
    wrong: dict[str, int] = defaultdict(int)
    total: dict[str, int] = defaultdict(int)
    for picture, texts in zip(pictures, read, strict=True):
        mistakes, characters = errors(picture, texts)
        for kind in (picture.kind, "all"):
            wrong[kind] += mistakes
            total[kind] += characters
    return {kind: wrong[kind] / total[kind] for kind in total}


def main() -> None:
    import torch

    from models.catalog import load_catalog
    from models.device import choose_device
    from operators.frame import Frame, Origin
    from operators.text import TextOperator

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"))
    parser.add_argument("--batch", type=int, default=8, help="pictures in one batch")
    parser.add_argument("--max-side", type=int, default=960)
    chosen = parser.parse_args()
    device = choose_device(chosen.device, chosen.precision)
    operator = TextOperator({"max_side": chosen.max_side}, device, load_catalog())
    operator.setup()
    pictures = render()
    frames = [
        Frame(
            str(number),
            "ocr",
            0,
            Origin("images", 0, number, 0),
            pixels=torch.from_numpy(picture.pixels).to(device.torch_device),
        )
        for number, picture in enumerate(pictures)
    ]
    operator.process(frames[:1])
    start = time.perf_counter()
    for first in range(0, len(frames), chosen.batch):
        operator.process(frames[first : first + chosen.batch])
    seconds = time.perf_counter() - start
    rates = error_rates(pictures, [[t.text for t in f.findings.texts] for f in frames])
    print(f"{device.torch_device} {device.dtype}, {torch.get_num_threads()} threads")
    print(f"{seconds / len(frames):.3f} s a picture, {len(frames) / seconds:.2f} pictures/s")
    for kind, rate in rates.items():
        print(f"{kind:>14} {100 * rate:6.2f} % of characters wrong")


if __name__ == "__main__":
    main()
