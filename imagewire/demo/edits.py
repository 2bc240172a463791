"""Near-duplicates: what happens to pictures on their way through the world, done to real photos.

Similarity search must find the original of each, and fingerprints should survive the mild ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from imagewire.demo.lettering import SAVE_OPTIONS, Fonts

_ORIENTATION = 0x0112
"""The EXIF tag that says how stored rows and columns lie in the upright picture."""

Change = Callable[[Image.Image, Fonts], Image.Image]


@dataclass(frozen=True, slots=True)
class Edit:
    """One near-duplicate.

    Attributes:
        photo: the file name of the photo that it is made from.
        name: of the edit; becomes part of the file name.
        suffix: the file format.
        change: what was done, in a few words.
        apply: does it.
        quality: of the encoder, where the suffix's own default will not do.
        orientation: EXIF orientation to store, the pixels being turned accordingly.
        lines: text that the edit adds.
    """

    photo: str
    name: str
    suffix: str
    change: str
    apply: Change
    quality: int | None = None
    orientation: int | None = None
    lines: tuple[str, ...] = ()

    def write(self, photo: Image.Image, path: Path, fonts: Fonts) -> None:
        """Write the edit of `photo`, an upright RGB picture, to `path`."""
        picture = self.apply(photo, fonts)
        options = dict(SAVE_OPTIONS.get(self.suffix, {}))
        if self.quality is not None:
            options["quality"] = self.quality
        if self.orientation is not None:
            exif = Image.Exif()
            exif[_ORIENTATION] = self.orientation
            options["exif"] = exif
        picture.save(path, **options)


def _same(photo: Image.Image, fonts: Fonts) -> Image.Image:
    return photo


def _crop(share: float) -> Change:
    """Keep the middle `share` of each side."""

    def apply(photo: Image.Image, fonts: Fonts) -> Image.Image:
        x, y = (round(side * (1 - share) / 2) for side in photo.size)
        return photo.crop((x, y, photo.width - x, photo.height - y))

    return apply


def _rotate(degrees: float) -> Change:
    def apply(photo: Image.Image, fonts: Fonts) -> Image.Image:
        return photo.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor="#777777")

    return apply


def _resize(factor: float) -> Change:
    def apply(photo: Image.Image, fonts: Fonts) -> Image.Image:
        width, height = (round(side * factor) for side in photo.size)
        return photo.resize((width, height), Image.Resampling.LANCZOS)

    return apply


def _brightness(factor: float) -> Change:
    def apply(photo: Image.Image, fonts: Fonts) -> Image.Image:
        return ImageEnhance.Brightness(photo).enhance(factor)

    return apply


def _mirror(photo: Image.Image, fonts: Fonts) -> Image.Image:
    return ImageOps.mirror(photo)


def _grey(photo: Image.Image, fonts: Fonts) -> Image.Image:
    return photo.convert("L")


def _blur(photo: Image.Image, fonts: Fonts) -> Image.Image:
    return photo.filter(ImageFilter.GaussianBlur(1.5))


def _print_colours(photo: Image.Image, fonts: Fonts) -> Image.Image:
    return photo.convert("CMYK")


def _lie_down(photo: Image.Image, fonts: Fonts) -> Image.Image:
    """Turned a quarter to the left, as a camera held upright stores it with orientation 6."""
    return photo.transpose(Image.Transpose.ROTATE_90)


def _caption(text: str) -> Change:
    """A white bar with `text` under the photo."""

    def apply(photo: Image.Image, fonts: Fonts) -> Image.Image:
        bar = max(44, photo.height // 9)
        picture = Image.new("RGB", (photo.width, photo.height + bar), "white")
        picture.paste(photo, (0, 0))
        ImageDraw.Draw(picture).text(
            (photo.width / 2, photo.height + bar / 2),
            text,
            "black",
            fonts.face("bold", round(bar * 0.5)),
            "mm",
        )
        return picture

    return apply


def _captioned(photo: str, text: str, suffix: str) -> Edit:
    return Edit(photo, "caption", suffix, "with a caption", _caption(text), lines=(text,))


EDITS: tuple[Edit, ...] = (
    Edit("bus.jpg", "crop", ".jpg", "cropped to 85 %", _crop(0.85)),
    Edit("zidane.jpg", "crop", ".webp", "cropped to 80 %", _crop(0.8)),
    Edit("cat.png", "crop", ".jpg", "cropped to 80 %", _crop(0.8)),
    Edit("flower.jpg", "crop", ".avif", "cropped to 85 %", _crop(0.85)),
    Edit("astronaut.png", "crop", ".jpg", "cropped to 85 %", _crop(0.85)),
    Edit("grace-hopper.jpg", "rotate", ".jpg", "rotated by 4°", _rotate(4)),
    Edit("coffee.png", "rotate", ".jpg", "rotated by -5°", _rotate(-5)),
    Edit("rocket.jpg", "rotate", ".png", "rotated by 3°", _rotate(3)),
    Edit("zidane.jpg", "recompress", ".jpg", "JPEG quality 25", _same, quality=25),
    Edit("china.jpg", "recompress", ".jpg", "JPEG quality 30", _same, quality=30),
    Edit("coins.png", "recompress", ".webp", "WebP quality 35", _same, quality=35),
    Edit("retina.jpg", "recompress", ".avif", "half size, AVIF quality 40", _resize(0.5), 40),
    Edit("cat.png", "darker", ".jpg", "brightness 60 %", _brightness(0.6)),
    Edit("flower.jpg", "brighter", ".jpg", "brightness 135 %", _brightness(1.35)),
    Edit("camera.png", "brighter", ".png", "brightness 125 %", _brightness(1.25)),
    Edit("bus.jpg", "mirror", ".jpg", "mirrored", _mirror),
    Edit("coffee.png", "mirror", ".webp", "mirrored", _mirror),
    Edit("horse.png", "mirror", ".gif", "mirrored", _mirror),
    Edit("astronaut.png", "grey", ".png", "in grey", _grey),
    Edit("china.jpg", "grey", ".jpg", "in grey", _grey),
    _captioned("cat.png", "Monday again", ".png"),
    _captioned("rocket.jpg", "Ready for launch", ".jpg"),
    _captioned("coffee.png", "Good morning", ".webp"),
    Edit("hubble.jpg", "small", ".jpg", "at 50 % size", _resize(0.5)),
    Edit("grace-hopper.jpg", "small", ".bmp", "at 60 % size", _resize(0.6)),
    Edit("brick.png", "small", ".tiff", "at 50 % size", _resize(0.5)),
    Edit("camera.png", "blur", ".jpg", "blurred", _blur),
    Edit("astronaut.png", "cmyk", ".jpg", "in CMYK", _print_colours),
    Edit("bus.jpg", "sideways", ".jpg", "stored sideways (EXIF)", _lie_down, orientation=6),
    Edit("china.jpg", "large", ".jpg", "at 160 % size", _resize(1.6)),
)
