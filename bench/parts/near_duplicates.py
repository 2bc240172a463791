"""How many edited copies of banned photos each way of recognising finds, and how often it is wrong.

Every photo is banned as it is; then a dozen edits of each are looked for. A copy counts as found if
its own original is near enough, and as a false alarm if another photo is. Photos come from inside
installed packages, and from the folder that IMAGEWIRE_BENCH_PHOTOS names, which
`python -m bench.gather_photos` fills; two that are alike by their hashes count once, and each is
brought to 640 pixels on its longer side.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

from bench.figures import Figure, Options, Report, figure
from bench.gather_photos import SOURCES
from imagewire.demo.photos import make_demo_set
from models.catalog import load_catalog
from models.device import choose_device
from operators.embedding import EmbeddingOperator
from operators.fingerprint import pdq_of_all
from operators.frame import Frame, Origin
from operators.pdq_turns import turned

FOLDER_VARIABLE = "IMAGEWIRE_BENCH_PHOTOS"
SIDE = 640
LEAST = 100
"""Photos; figures of fewer would replace better ones in bench/RESULTS.md."""
DISTANCE = 31
QUALITY = 50
THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
CHOSEN = 0.2
"""The default of a list's `max_embedding_distance`."""
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
# Of packages that ship photos; drawings and scanned pages are no photos.
_NO_PHOTOS = frozenset({"page.png", "handwriting.png", "horse.png"})
INSTALLED = "inside installed Python packages"

Edit = Callable[[Image.Image], Image.Image]


def _encoded(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def _resized(picture: Image.Image, factor: float) -> Image.Image:
    size = tuple(max(16, round(side * factor)) for side in picture.size)
    return picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)


def _cropped(picture: Image.Image, share: float) -> Image.Image:
    x, y = (round(side * (1 - share) / 2) for side in picture.size)
    return picture.crop((x, y, picture.width - x, picture.height - y))


def _lettered(picture: Image.Image) -> Image.Image:
    picture = picture.copy()
    folder = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans-Bold.ttf"
    font = ImageFont.truetype(str(folder), max(14, picture.height // 9))
    draw = ImageDraw.Draw(picture)
    for text, y, anchor in (("WHEN YOU SEE IT", 8, "ma"), ("SHARE THIS", picture.height - 8, "md")):
        draw.text(
            (picture.width / 2, y), text, "white", font, anchor, stroke_width=3, stroke_fill="black"
        )
    return picture


EDITS: Mapping[str, Edit] = {
    "half size": lambda p: _resized(p, 0.5),
    "JPEG quality 20": lambda p: _encoded(p, 20),
    "a tenth cropped": lambda p: _cropped(p, 0.9),
    "a third cropped": lambda p: _cropped(p, 0.67),
    "text over it": _lettered,
    "brighter, more colour": lambda p: ImageEnhance.Color(
        ImageEnhance.Brightness(p).enhance(1.35)
    ).enhance(1.6),
    "grey": lambda p: ImageOps.grayscale(p).convert("RGB"),
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "turned by 90°": lambda p: p.transpose(Image.Transpose.ROTATE_270),
    "turned by 5°": lambda p: p.rotate(5, Image.Resampling.BICUBIC, fillcolor="black"),
    "mirrored, half size, quality 40": lambda p: _encoded(_resized(ImageOps.mirror(p), 0.5), 40),
}


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo, `SIDE` pixels on its longer side at most, and in words where it came from."""

    picture: Image.Image
    source: str


@dataclass(frozen=True, slots=True)
class _Known:
    """What there is to recognise pictures by; rows belong together."""

    digests: list[str]
    hashes: NDArray[np.uint8]
    qualities: NDArray[np.int64]
    vectors: NDArray[np.float32]


def run(options: Options) -> Report:
    """Ban every photo, and look for every edit."""
    photos = load_photos(6 if options.quick else None)
    if not options.quick and len(photos) < LEAST:
        raise RuntimeError(
            f"{len(photos)} photos are too few to measure accuracy by, {LEAST} are the least: run "
            f"`python -m bench.gather_photos FOLDER` and set {FOLDER_VARIABLE}=FOLDER"
        )
    embedder = _embedder(options.device)
    try:
        originals = _known([photo.picture for photo in photos], embedder)
        edits = {}
        for name, edit in list(EDITS.items())[: 3 if options.quick else None]:
            edits[name] = _known([edit(photo.picture) for photo in photos], embedder)
            options.report(f"{name}: {len(photos)} photos")
    finally:
        embedder.close()
    return _report(originals, edits, Counter(photo.source for photo in photos))


def load_photos(most: int | None = None) -> list[Photo]:
    """Real photos, no two alike."""
    with tempfile.TemporaryDirectory(prefix="imagewire-bench-photos-") as folder:
        paths = [
            (image.path, INSTALLED)
            for image in make_demo_set(Path(folder))
            if image.kind == "photo" and image.name not in _NO_PHOTOS
        ]
        if named := os.environ.get(FOLDER_VARIABLE):
            paths += _in_folder(Path(named))
        kept: list[Photo] = []
        hashes = np.empty((0, 32), np.uint8)
        for path, source in paths:
            with Image.open(path) as opened:
                photo = ImageOps.exif_transpose(opened).convert("RGB")
            photo.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            if min(photo.size) < SIDE // 4:
                continue
            [(digest, quality)] = pdq_of_all([_pixels(photo)])
            code = np.frombuffer(bytes.fromhex(digest), np.uint8)
            near = np.bitwise_count(hashes ^ code).sum(axis=1)
            if quality < QUALITY or (near <= DISTANCE).any():
                continue
            hashes = np.concatenate([hashes, code[None]])
            kept.append(Photo(photo, source))
            if len(kept) == most:
                break
    return kept


def _in_folder(folder: Path) -> list[tuple[Path, str]]:
    """Paths of a folder's pictures, and what its sources.csv, if it has one, says of them."""
    sources: dict[str, str] = {}
    if (folder / SOURCES).is_file():
        with (folder / SOURCES).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                sources[row["file"]] = f"in {row['package']} {row['version']}"
    found = (path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    return [
        (path, sources.get(path.name, f"in the folder of {FOLDER_VARIABLE}"))
        for path in sorted(found)
    ]


def _embedder(device: str) -> EmbeddingOperator:
    operator = EmbeddingOperator({}, choose_device(device), load_catalog())
    operator.setup()
    return operator


def _known(pictures: Sequence[Image.Image], embedder: EmbeddingOperator) -> _Known:
    digests, hashes, qualities, vectors = [], [], [], []
    for picture in pictures:
        pixels = _pixels(picture)
        [(digest, quality)] = pdq_of_all([pixels])
        frame = Frame("photo", "bench", 0, Origin("bench", 0, 0, 0), pixels=pixels)
        embedder.process([frame])
        embedding = frame.findings.embedding
        if embedding is None:
            raise RuntimeError(f"no embedding: {frame.failure}")
        digests.append(hashlib.sha256(picture.tobytes()).hexdigest())
        hashes.append(np.frombuffer(bytes.fromhex(digest), np.uint8))
        qualities.append(quality)
        vectors.append(embedding.vector)
    return _Known(
        digests, np.stack(hashes), np.array(qualities), np.array(vectors, dtype=np.float32)
    )


def _pixels(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture))


def _distances(copies: _Known, originals: _Known, *, turns: bool) -> NDArray[np.int64]:
    """PDQ distance of each copy (row) to each original; beyond any if its quality is too low."""
    found = np.empty((len(copies.hashes), len(originals.hashes)), np.int64)
    for row, code in enumerate(copies.hashes):
        asked = turned(code.tobytes())[: None if turns else 1]
        found[row] = (
            np.bitwise_count(asked[:, None] ^ originals.hashes[None]).sum(axis=2).min(axis=0)
        )
    found[copies.qualities < QUALITY] = 256
    return found


def _report(originals: _Known, edits: Mapping[str, _Known], sources: Mapping[str, int]) -> Report:
    photos = len(originals.digests)
    methods: dict[str, Callable[[_Known], NDArray[np.bool_]]] = {
        "SHA-256": lambda copies: (
            np.array(copies.digests)[:, None] == np.array(originals.digests)[None]
        ),
        "PDQ": lambda copies: _distances(copies, originals, turns=False) <= DISTANCE,
        "PDQ, turned too": lambda copies: _distances(copies, originals, turns=True) <= DISTANCE,
        f"embedding ≤ {CHOSEN:g}": lambda copies: (
            1 - copies.vectors @ originals.vectors.T <= CHOSEN
        ),
    }
    near = {
        name: {edit: method(copies) for edit, copies in edits.items()}
        for name, method in methods.items()
    }
    either = f"PDQ, turned too, or embedding ≤ {CHOSEN:g}"
    near[either] = {
        edit: near["PDQ, turned too"][edit] | near[f"embedding ≤ {CHOSEN:g}"][edit]
        for edit in edits
    }
    rows = [
        f"| {edit} | " + " | ".join(f"{_recall(near[name][edit]):.0%}" for name in near) + " |"
        for edit in edits
    ]
    false_rows = [
        f"| {edit} | "
        + " | ".join(f"{_false_alarms(near[name][edit]):.1%}" for name in near)
        + " |"
        for edit in edits
    ]
    all_found = {name: _recall(*found.values()) for name, found in near.items()}
    all_false = {name: _false_alarms(*found.values()) for name, found in near.items()}
    figures: list[Figure] = []
    for name, key in (
        ("SHA-256", "sha256"),
        ("PDQ", "pdq"),
        ("PDQ, turned too", "pdq_turned"),
        (f"embedding ≤ {CHOSEN:g}", "embedding"),
        (either, "either"),
    ):
        figures.append(figure(f"near_duplicates_{key}_recall", [all_found[name]]))
        figures.append(
            figure(f"near_duplicates_{key}_false_alarms", [all_false[name]], better="lower")
        )
    cosine = [1 - copies.vectors @ originals.vectors.T for copies in edits.values()]
    thresholds = [
        f"| {limit:g} | {_recall(*(one <= limit for one in cosine)):.1%} | "
        f"{_false_alarms(*(one <= limit for one in cosine)):.2%} | "
        f"{_false_pairs(*(one <= limit for one in cosine)):.4%} |"
        for limit in THRESHOLDS
    ]
    heading = " | ".join(near)
    text = "\n".join(
        [
            f"{photos} photos, each banned, and {len(edits)} edits of each: "
            f"{photos * len(edits)} copies to find. PDQ within {DISTANCE} bits at quality "
            f"{QUALITY} or more; the embedding is EfficientNet-lite0's. The photos: "
            + ", ".join(f"{count} {source}" for source, count in sources.items())
            + ".",
            "",
            f"| copies found | {heading} |",
            "|---" * (len(near) + 1) + "|",
            *rows,
            "| **all** | " + " | ".join(f"**{all_found[name]:.1%}**" for name in near) + " |",
            "",
            f"False positives: copies that one of the {photos - 1} other photos matches too, which "
            "is the chance that a picture is taken for one of a list that long, though it is not "
            "on it.",
            "",
            f"| false positives | {heading} |",
            "|---" * (len(near) + 1) + "|",
            *false_rows,
            "| **all** | " + " | ".join(f"**{all_false[name]:.2%}**" for name in near) + " |",
            "",
            "What an embedding distance as the limit would find and confuse:",
            "",
            "| limit | copies found | copies that another photo matches too | pairs of a copy and "
            "another photo that match |",
            "|---|---|---|---|",
            *thresholds,
        ]
    )
    command = (
        "python -m bench.gather_photos FOLDER; "
        f"{FOLDER_VARIABLE}=FOLDER make bench ONLY=near_duplicates"
    )
    return Report("Near duplicates", command, text, figures)


def _recall(*near: NDArray[np.bool_]) -> float:
    """Share of copies that their own original is near to."""
    return float(np.mean([np.diag(one) for one in near]))


def _false_alarms(*near: NDArray[np.bool_]) -> float:
    """Share of copies that some other photo is near to."""
    return float(np.mean([_others(one).any(axis=1) for one in near]))


def _false_pairs(*near: NDArray[np.bool_]) -> float:
    """Share of pairs of a copy and another photo that are near."""
    others = len(near[0]) * (len(near[0]) - 1) or 1
    return float(np.mean([_others(one).sum() / others for one in near]))


def _others(near: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return near & ~np.eye(len(near), dtype=np.bool_)
