"""The pictures of the demonstration: real photos, near-duplicates of them, text, and broken files.

Everything comes from inside installed packages, so the demonstration needs no network. The bytes
are the same on every run with the same Pillow, so content ids stay the same too, and publishing the
set again must change nothing in the stores.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from PIL import Image, ImageOps

from imagewire.demo.edits import EDITS
from imagewire.demo.lettering import SHEETS, Fonts
from operators.findings import Action

Kind = Literal["photo", "edit", "text", "broken"]


class DemoError(Exception):
    """The demonstration cannot be prepared: the message says what is missing and how to get it."""


@dataclass(frozen=True, slots=True)
class Credit:
    """Where a photo comes from, and on what terms."""

    name: str
    package: str
    title: str
    terms: str


@dataclass(frozen=True, slots=True)
class DemoImage:
    """One file of the set, and what may be expected of it.

    Attributes:
        name: unique; also the file's name.
        path: the file.
        kind: `photo` (as its package ships it), `edit` (made from a photo), `text` (rendered) or
            `broken` (no decoder can read it).
        origin: the name of the photo that an edit was made from, else the package.
        change: what an edit changed or what is broken, in a few words.
        lines: the text that was drawn into the picture, line by line.
        action: what the default policy should decide; `None` for broken files, which get no
            verdict.
    """

    name: str
    path: Path
    kind: Kind
    origin: str
    change: str = ""
    lines: tuple[str, ...] = ()
    action: Action | None = "allow"


@dataclass(frozen=True, slots=True)
class _Photo:
    name: str
    package: str
    file: str
    title: str
    terms: str


_PUBLIC_DOMAIN = "public domain"
_CC0 = "CC0 1.0"
_CC_BY = "CC BY 2.0"
_SHIPPED = "as shipped with the package"

_PHOTOS = (
    _Photo("bus.jpg", "ultralytics", "assets/bus.jpg", "Electric bus in Madrid", _SHIPPED),
    _Photo("zidane.jpg", "ultralytics", "assets/zidane.jpg", "Two men at a match", _SHIPPED),
    _Photo(
        "grace-hopper.jpg",
        "matplotlib",
        "mpl-data/sample_data/grace_hopper.jpg",
        "Grace Hopper, United States Navy",
        _PUBLIC_DOMAIN,
    ),
    _Photo(
        "china.jpg",
        "sklearn",
        "datasets/images/china.jpg",
        "Summer Palace, Beijing, by danielbuechele",
        _CC_BY,
    ),
    _Photo("flower.jpg", "sklearn", "datasets/images/flower.jpg", "Dahlia, by vultilion", _CC_BY),
    _Photo(
        "astronaut.png", "skimage", "data/astronaut.png", "Eileen Collins, NASA", _PUBLIC_DOMAIN
    ),
    _Photo("camera.png", "skimage", "data/camera.png", "Cameraman, by Lav Varshney", _CC0),
    _Photo(
        "cat.png", "skimage", "data/chelsea.png", "Chelsea the cat, by Stefan van der Walt", _CC0
    ),
    _Photo("coffee.png", "skimage", "data/coffee.png", "Coffee, by Rachel Michetti", _CC0),
    _Photo(
        "coins.png",
        "skimage",
        "data/coins.png",
        "Greek coins from Pompeii, Brooklyn Museum",
        "no known copyright restrictions",
    ),
    _Photo(
        "rocket.jpg", "skimage", "data/rocket.jpg", "Falcon 9 with DSCOVR, SpaceX", _PUBLIC_DOMAIN
    ),
    _Photo(
        "hubble.jpg",
        "skimage",
        "data/hubble_deep_field.jpg",
        "Hubble eXtreme Deep Field, NASA",
        _PUBLIC_DOMAIN,
    ),
    _Photo("retina.jpg", "skimage", "data/retina.jpg", "Fundus of a left eye", _CC0),
    _Photo("brick.png", "skimage", "data/brick.png", "Brick wall, CC0Textures", _CC0),
    _Photo("gravel.png", "skimage", "data/gravel.png", "Gravel, CC0Textures", _CC0),
    _Photo("horse.png", "skimage", "data/horse.png", "Horse, by Andreas Preuss", _CC0),
    _Photo("page.png", "skimage", "data/page.png", "Printed page", _SHIPPED),
    _Photo("handwriting.png", "skimage", "data/text.png", "Formula in handwriting", _PUBLIC_DOMAIN),
)

CREDITS: tuple[Credit, ...] = tuple(
    Credit(photo.name, photo.package, photo.title, photo.terms) for photo in _PHOTOS
)
"""Origin and terms of every photo, as its package states them; edits inherit them."""


def make_demo_set(directory: Path) -> list[DemoImage]:
    """Write the demonstration's files into `directory`, which is created if need be.

    Raises:
        DemoError: a package that ships photos or fonts is not installed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    images = [_copy(photo, directory) for photo in _PHOTOS]
    images += _edits(directory)
    images += _texts(directory)
    images += _broken(directory)
    return images


def _copy(photo: _Photo, directory: Path) -> DemoImage:
    target = directory / photo.name
    shutil.copyfile(_inside(photo.package, photo.file), target)
    return DemoImage(photo.name, target, "photo", photo.package)


def _edits(directory: Path) -> list[DemoImage]:
    images = []
    fonts = _fonts()
    for edit in EDITS:
        with Image.open(directory / edit.photo) as photo:
            upright = ImageOps.exif_transpose(photo).convert("RGB")
        name = f"{Path(edit.photo).stem}-{edit.name}{edit.suffix}"
        edit.write(upright, directory / name, fonts)
        images.append(
            DemoImage(name, directory / name, "edit", edit.photo, edit.change, edit.lines)
        )
    return images


def _texts(directory: Path) -> list[DemoImage]:
    images = []
    fonts = _fonts()
    for sheet in SHEETS:
        sheet.write(directory / sheet.name, fonts)
        images.append(
            DemoImage(
                sheet.name,
                directory / sheet.name,
                "text",
                "imagewire",
                lines=sheet.lines,
                action=sheet.action,
            )
        )
    return images


def _broken(directory: Path) -> list[DemoImage]:
    truncated = directory / "truncated.jpg"
    content = (directory / "bus.jpg").read_bytes()
    # Enough for the headers, so that only decoding finds out.
    truncated.write_bytes(content[: len(content) // 10])
    disguised = directory / "notes.jpg"
    disguised.write_text("This is a text file that somebody called .jpg.\n", encoding="utf-8")
    return [
        DemoImage(
            truncated.name, truncated, "broken", "bus.jpg", "cut off after a tenth", action=None
        ),
        DemoImage(
            disguised.name, disguised, "broken", "imagewire", "text, not a picture", action=None
        ),
    ]


def _fonts() -> Fonts:
    return Fonts(_inside("matplotlib", "mpl-data/fonts/ttf"))


def _inside(package: str, file: str) -> Path:
    """A file inside an installed package, which is not imported: matplotlib takes a second."""
    spec = find_spec(package)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(location) / file).exists():
            return path
    raise DemoError(
        f"the demonstration needs {file} from the package '{package}'; "
        "install it with: pip install 'imagewire[demo]'"
    )
