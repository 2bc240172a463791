"""One running `imagewire up` for each broker asked for, and records of every kind that it got.

Starting everything takes a while, so tests share it: they are in the xdist group `end-to-end`,
which keeps them on one test process, and each keeps to a feed of its own.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont
from running_up import Record, RunningUp, Story
from shared_broker import missing

from imagewire.demo.photos import make_demo_set
from operators.frame import NAMESPACE


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    make_demo_set(folder)
    sign = Image.new("RGB", (640, 240), "white")
    font = ImageFont.load_default(56)
    ImageDraw.Draw(sign).text((40, 80), "Platform 9 to Leeds", font=font, fill="black")
    sign.save(folder / "sign.png")
    return folder


@pytest.fixture(scope="session")
def up(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, photos: Path
) -> Iterator[RunningUp]:
    if reason := missing(request.param):
        if os.environ.get("CI"):
            pytest.fail(f"CI must test on {request.param}: {reason}")
        pytest.skip(f"{request.param} cannot run here: {reason}")
    running = RunningUp(
        tmp_path_factory.mktemp(request.param) / "data",
        ["--broker", request.param, "--files", str(photos)],
        # A worker that was killed is then missed within seconds.
        {"IMAGEWIRE_STREAM__SESSION_TIMEOUT": "4"},
    )
    try:
        running.start()
        yield running
    finally:
        running.end()


@pytest.fixture(scope="session")
def story(up: RunningUp, photos: Path) -> Story:
    """Good and bad records side by side, from many kinds of producers."""
    broken = (photos / "truncated.jpg").read_bytes()
    headers = (("image-id", b"coffee"), ("feed", b"story"), ("camera", b"north"))
    jpeg = ("content-type", b"image/jpeg")
    reference = {"id": "zidane", "uri": (photos / "zidane.jpg").as_uri(), "feed": "story"}
    unreachable = {"id": "loopback", "uri": "http://127.0.0.1:9/a.jpg", "feed": "story"}
    absent = {"id": "absent", "uri": (photos / "absent.jpg").as_uri(), "feed": "story"}
    outside = {"id": "outside", "uri": Path("/etc/hostname").as_uri(), "feed": "story"}
    records = {
        "bus": Record(
            (photos / "bus.jpg").read_bytes(),
            b"story",
            (("image-id", b"bus"), ("feed", b"story"), jpeg),
        ),
        "loopback": Record(json.dumps(unreachable).encode(), b"story"),
        "zidane": Record(json.dumps(reference | {"floor": 3}).encode(), b"story"),
        "broken": Record(broken, b"story", (("image-id", b"broken"), ("feed", b"story"), jpeg)),
        "empty": Record(b"", b"story", (("image-id", b"empty"), ("feed", b"story"), jpeg)),
        # As `kcat -P -H …` sends a file: no content type, no key.
        "coffee": Record((photos / "coffee.png").read_bytes(), None, headers),
        "list": Record(b"[1, 2, 3]", b"story", (("feed", b"story"),)),
        "words": Record(b"hello", b"story", (("feed", b"story"),)),
        "nothing": Record(None, b"story", (("feed", b"story"),)),
        # A reference with neither key nor id.
        "cat": Record(json.dumps({"uri": (photos / "cat.png").as_uri(), "feed": "story"}).encode()),
        "absent": Record(json.dumps(absent).encode(), b"story"),
        "outside": Record(json.dumps(outside).encode(), b"story"),
        "sign": Record(
            (photos / "sign.png").read_bytes(),
            b"story",
            (("image-id", b"sign"), ("feed", b"story"), ("content-type", b"image/png")),
        ),
    }
    origins = dict(zip(records, up.send(list(records.values())), strict=True))

    def derived(name: str) -> str:
        origin = origins[name]
        return str(uuid.uuid5(NAMESPACE, f"{origin.topic}/{origin.partition}/{origin.offset}"))

    story = Story(
        good={"bus", "zidane", "sign", "coffee", derived("cat")},
        dead={
            "loopback": ("fetch", "forbidden"),
            "absent": ("fetch", "not-found"),
            "outside": ("fetch", "forbidden"),
            "broken": ("decode", "truncated"),
            "empty": ("decode", "empty"),
            derived("list"): ("parse", "not-a-reference"),
            derived("words"): ("parse", "not-a-record"),
            derived("nothing"): ("parse", "empty-record"),
        },
    )
    up.wait_for("story", len(story.good), len(story.dead))
    return story
