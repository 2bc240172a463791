"""The contact sheet shows everything that was found, needs nothing else, and trusts no image."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imagewire.demo.contact_sheet import write_contact_sheet
from imagewire.demo.outcome import (
    DeadLetter,
    Neighbour,
    SqlAnswer,
    Summary,
    Tile,
    humanised,
    shown,
)
from imagewire.demo.overlay import overlay
from imagewire.demo.photos import make_demo_set
from models.catalog import load_catalog
from models.device import choose_device
from operators.faces import FacesOperator
from operators.findings import (
    Action,
    Detection,
    Findings,
    ImageInfo,
    RuleHit,
    TextLine,
    Verdict,
)
from operators.frame import Frame, Origin

QUAD = ((10.0, 10.0), (90.0, 10.0), (90.0, 30.0), (10.0, 30.0))
SUMMARY = Summary(3, 2, 1, 0, 0, 8.25, 1234.0, 5678.0, "tansu", "cpu", "default-0123456789ab")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {image.name: image.path for image in make_demo_set(tmp_path_factory.mktemp("demo"))}


def tile_of(path: Path, action: Action = "allow", text: str = "Station Road") -> Tile:
    findings = Findings(
        image=ImageInfo(512, 600, "jpeg", 1000),
        objects=[Detection("FACE_FEMALE", 0.61, (100.0, 50.0, 200.0, 180.0))],
        texts=[TextLine(text, 0.98, QUAD)],
        scores={"nsfw": 0.02},
        verdict=Verdict(action, "default-0123456789ab", [RuleHit("some-rule", action, "because")]),
    )
    return Tile(
        path.name, path, findings, neighbour=Neighbour("astronaut.png", 0.83), latency_ms=99
    )


def sheet(path: Path, *tiles: Tile, **parts: object) -> str:
    write_contact_sheet(path, tiles, SUMMARY, **parts)  # type: ignore[arg-type]
    return path.read_text(encoding="utf-8")


def test_a_tile_shows_objects_text_verdict_rule_and_nearest_image(
    photos: dict[str, Path], tmp_path: Path
) -> None:
    page = sheet(
        tmp_path / "demo.html",
        tile_of(photos["grace-hopper.jpg"], "review"),
        tile_of(photos["astronaut.png"]),
    )
    for shown_text in (
        "grace-hopper.jpg",
        "face (female) 0.61",
        "Station Road",
        "some-rule",
        "because",
        "nsfw 0.02",
        'href="#image-1"',
        "similarity 0.83",
        "1,234",
        "5,678",
        "default-0123456789ab",
        'points="10.0,10.0 90.0,10.0 90.0,30.0 10.0,30.0"',
    ):
        assert shown_text in page


def test_the_page_loads_nothing_and_runs_nothing(photos: dict[str, Path], tmp_path: Path) -> None:
    page = sheet(tmp_path / "demo.html", tile_of(photos["camera.png"]))

    class Seen(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: set[str] = set()
            self.addresses: list[str] = []
            self.attributes: set[str] = set()

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.tags.add(tag)
            self.attributes.update(name for name, _ in attrs)
            self.addresses += [v or "" for n, v in attrs if n in ("src", "href")]

    seen = Seen()
    seen.feed(page)
    assert not seen.tags & {"script", "link", "iframe", "object", "embed", "form"}
    assert not {name for name in seen.attributes if name.startswith("on") or name == "style"}
    assert all(address.startswith(("data:image/webp", "#")) for address in seen.addresses)
    assert "default-src 'none'" in page


def test_what_an_image_says_is_never_taken_for_markup(
    photos: dict[str, Path], tmp_path: Path
) -> None:
    evil = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
    page = sheet(
        tmp_path / "demo.html",
        tile_of(photos["camera.png"], text=evil),
        dead_letters=[DeadLetter(evil, evil, evil, evil)],
        answers=[SqlAnswer(evil, evil, [evil], [[evil]])],
    )
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;" in page


def test_the_style_sheet_matches_the_digest_that_the_page_allows(
    photos: dict[str, Path], tmp_path: Path
) -> None:
    page = sheet(tmp_path / "demo.html", tile_of(photos["camera.png"]))
    style = page.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in page


def test_of_a_blocked_picture_nothing_is_embedded_that_could_be_recognised(
    photos: dict[str, Path], tmp_path: Path
) -> None:
    def detail(action: Action) -> float:
        page = sheet(tmp_path / f"{action}.html", tile_of(photos["brick.png"], action))
        content = re.search(r"data:image/webp;base64,([^\"]+)", page)
        assert content
        with Image.open(io.BytesIO(base64.b64decode(content[1]))) as preview:
            pixels = np.asarray(preview.convert("L"), dtype=float)
        return float(np.abs(np.diff(pixels, axis=1)).mean())

    assert detail("block") < detail("review") / 10


def test_no_preview_shows_a_face(photos: dict[str, Path], tmp_path: Path) -> None:
    watcher = FacesOperator({"confidence": 0.2}, choose_device("cpu", "fp32"), load_catalog())
    watcher.setup()

    def faces(picture: Image.Image) -> int:
        pixels = torch.from_numpy(np.array(picture.convert("RGB")))
        frame = Frame("id", "feed", 0, Origin("t", 0, 0, 0), pixels=pixels)
        watcher.process([frame])
        return len(frame.findings.faces)

    names = ["grace-hopper.jpg", "astronaut.png"]
    for name in names:
        with Image.open(photos[name]) as original:
            assert faces(original) == 1
    page = sheet(tmp_path / "demo.html", *(tile_of(photos[name]) for name in names))
    contents = re.findall(r"data:image/webp;base64,([^\"]+)", page)
    assert len(contents) >= 2 * len(names)
    for content in contents:
        with Image.open(io.BytesIO(base64.b64decode(content))) as preview:
            assert faces(preview) == 0


def test_a_picture_that_is_gone_keeps_its_findings(tmp_path: Path) -> None:
    page = sheet(tmp_path / "demo.html", tile_of(tmp_path / "gone.jpg"))
    assert "no preview" in page
    assert "Station Road" in page


def test_dead_letters_answers_and_credits_are_shown(tmp_path: Path) -> None:
    page = sheet(
        tmp_path / "demo.html",
        dead_letters=[DeadLetter("notes.jpg", "decode", "not-an-image", "It is text.")],
        answers=[SqlAnswer("How many?", "SELECT count()", ["n"], [[60123]])],
    )
    for part in ("notes.jpg", "not-an-image", "It is text.", "How many?", "60,123", "CC BY 2.0"):
        assert part in page


def test_labels_of_crowded_objects_do_not_cover_each_other() -> None:
    objects = [
        Detection(
            "FACE_FEMALE", 0.9 - index / 100, (60.0 + index * 7, 80.0, 160.0 + index * 7, 200)
        )
        for index in range(6)
    ]
    layout = overlay(Findings(objects=objects), 720, 540)
    plates = [mark.plate for mark in layout.marks]
    assert len(plates) == 6
    for index, plate in enumerate(plates):
        assert not any(plate.overlaps(other) for other in plates[index + 1 :])
        assert 0 <= plate.x <= 720 - plate.width
        assert 0 <= plate.y <= 540 - plate.height


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("FACE_FEMALE", "face (female)"),
        ("FEMALE_BREAST_EXPOSED", "breast (female, exposed)"),
        ("BELLY_COVERED", "belly (covered)"),
        ("person", "person"),
        ("traffic_light", "traffic light"),
        ("FEMALE", "female"),
        ("LOGO_BIG", "logo big"),
    ],
)
def test_labels_are_written_as_people_write_them(label: str, words: str) -> None:
    assert humanised(label) == words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (1234567, "1,234,567"),
        (0.5, "0.5"),
        (2.0, "2"),
        (True, "True"),
        ([1, "a"], "1, a"),
    ],
)
def test_values_of_answers_are_printed_for_people(value: object, text: str) -> None:
    assert shown(value) == text
