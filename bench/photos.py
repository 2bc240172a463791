"""Real photos for the bench: many files, mixed sizes, no two of the same bytes.

The pictures are those that come inside installed packages, cropped and resized to the sizes of a
mixed feed and encoded as JPEG. A file's number stands in a comment inside it, so each has a content
id of its own and nothing that remembers contents can answer for it, while decoding costs the same.
"""

from __future__ import annotations

import io
import itertools
import math
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from imagewire.demo.photos import make_demo_set

SIZES: tuple[tuple[int, int], ...] = (
    *[(640, 480)] * 5,
    *[(1280, 720)] * 3,
    *[(1920, 1080)] * 2,
)
"""Width and height, by turns: half are VGA, three tenths 720p, a fifth 1080p."""

QUALITY = 88
MIX = "JPEG, quality 88: 50 % 640×480, 30 % 1280×720, 20 % 1920×1080"
"""`SIZES` and `QUALITY` in words, for reports."""


@dataclass(frozen=True, slots=True)
class Photos:
    """Endless photos by number, from a set of encoded pictures."""

    pictures: tuple[bytes, ...]

    def content(self, number: int) -> bytes:
        """The bytes of photo `number`, which no other photo has."""
        picture = self.pictures[number % len(self.pictures)]
        comment = f"photo {number}".encode()
        # Right after the start-of-image marker: a COM segment, its length counting itself.
        return (
            picture[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + picture[2:]
        )

    def write(self, folder: Path, numbers: Sequence[int]) -> list[Path]:
        """Write photos into `folder`, which is made if it is not there; returns their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for number in numbers:
            path = folder / f"{number}.jpg"
            path.write_bytes(self.content(number))
            paths.append(path)
        return paths

    @property
    def mean_bytes(self) -> int:
        """Of an encoded picture."""
        return sum(map(len, self.pictures)) // len(self.pictures)


def load_photos(
    sizes: Sequence[tuple[int, int]] = SIZES, *, quality: int = QUALITY, different: int = 60
) -> Photos:
    """Real photos, `different` pictures of the given sizes by turns.

    Every size meets every photo before one repeats. Small photos are enlarged, which makes their
    files smaller than a camera's of that size.

    Args:
        sizes: (width, height); a picture is cropped in the middle to the same proportions.
        quality: of JPEG.

    Raises:
        imagewire.demo.photos.DemoError: a package that ships photos is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="imagewire-bench-photos-") as folder:
        paths = [image.path for image in make_demo_set(Path(folder)) if image.kind == "photo"]
        originals = [_upright(path) for path in paths]
    pictures = []
    for number, size in zip(range(different), itertools.cycle(sizes), strict=False):
        # A step of one photo each, and one more after each round, so that sizes and photos whose
        # numbers share a divisor still meet in all pairs.
        round_ = number // math.lcm(len(sizes), len(originals))
        original = originals[(number + round_) % len(originals)]
        pictures.append(_encoded(original, size, quality))
    return Photos(tuple(pictures))


def _upright(path: Path) -> Image.Image:
    with Image.open(path) as photo:
        return ImageOps.exif_transpose(photo).convert("RGB")


def _encoded(photo: Image.Image, size: tuple[int, int], quality: int) -> bytes:
    fitted = ImageOps.fit(photo, size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    fitted.save(file, "JPEG", quality=quality)
    return file.getvalue()
