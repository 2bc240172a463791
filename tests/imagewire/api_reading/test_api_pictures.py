"""Promises of pictures: private places hidden, and the bytes that were analysed or a problem."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.catalog import load_catalog
from models.device import Device
from operators.faces import FacesOperator
from operators.frame import Frame, Origin

pytestmark = [pytest.mark.xdist_group("api-reading"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def watcher() -> FacesOperator:
    device = Device(torch.device("cpu"), torch.float32)
    made = FacesOperator({"confidence": 0.2}, device, load_catalog())
    made.setup()
    return made


def pixels_of(content: bytes) -> np.ndarray:
    opened = Image.open(io.BytesIO(content))
    assert opened.format == "WEBP"
    return np.asarray(opened.convert("RGB"))


def faces(watcher: FacesOperator, pixels: np.ndarray) -> int:
    frame = Frame("id", "feed", 0, Origin("t", 0, 0, 0), pixels=torch.from_numpy(pixels.copy()))
    watcher.process([frame])
    return len(frame.findings.faces)


@pytest.mark.parametrize("path", ["picture", "annotated?scores=false", "explain"])
def test_nobody_can_be_recognised_in_what_leaves(
    library: Any, watcher: FacesOperator, path: str
) -> None:
    for image in ("bus", "inline"):  # fetched again, and read from Kafka again
        joint = "&" if "?" in path else "?"
        answer = library.get(f"/v1/images/{image}/{path}{joint}size=640")
        assert answer.status_code == 200, answer.text
        pixels = pixels_of(answer.content)
        assert max(pixels.shape[:2]) <= 640
        assert faces(watcher, pixels) == 0


def test_reviewers_may_see_what_is_hidden_and_others_may_not(
    library: Any, watcher: FacesOperator
) -> None:
    path = "/v1/images/inline/picture?size=512&unblurred=true"
    assert library.get(path).status_code == 403
    shown = library.get(path, "reviewer")
    assert shown.status_code == 200
    assert faces(watcher, pixels_of(shown.content)) == 1


def test_of_a_blocked_image_nothing_can_be_recognised(library: Any) -> None:
    hidden = pixels_of(library.get("/v1/images/blocked/picture").content)
    there = pixels_of(library.get("/v1/images/blocked/picture?unblurred=true", "reviewer").content)
    assert hidden.shape == there.shape
    # What is left are a few cells: next to nothing changes from pixel to pixel.
    change = [float(np.abs(np.diff(each.astype(int), axis=1)).mean()) for each in (hidden, there)]
    assert change[0] < change[1] / 3


def test_what_was_found_is_drawn_where_it_is(library: Any) -> None:
    def pixels(query: str) -> np.ndarray:
        answer = library.get(f"/v1/images/bus/annotated?size=640&{query}")
        return pixels_of(answer.content).astype(int)

    plain = pixels("boxes=false&text=false&scores=false")
    changed = np.abs(pixels("text=false&scores=false") - plain).sum(axis=2) > 60
    height, width = changed.shape
    image = library.get("/v1/images/bus").json()["findings"]
    for found in image["objects"]:
        x1, _, x2, y2 = found["box"]
        row = min(round(y2 / 1080 * height), height - 1)
        columns = slice(round(x1 / 810 * width), round(x2 / 810 * width))
        assert changed[max(row - 3, 0) : row + 3, columns].any(axis=0).mean() > 0.6
    assert changed.mean() < 0.3
    drawn = np.abs(pixels("boxes=false&scores=false") - plain).sum(axis=2) > 60
    assert drawn[:40, : width // 3].mean() > 0.05


def test_a_heat_map_is_hottest_where_the_object_is(library: Any) -> None:
    label = library.get("/v1/images/bus").json()["findings"]["objects"][0]
    path = f"/v1/images/bus/explain?size=320&label={label['label']}"
    answer = library.get(path)
    assert answer.status_code == 200, answer.text
    plain = pixels_of(library.get("/v1/images/bus/picture?size=320").content).astype(int)
    changed = np.abs(pixels_of(answer.content).astype(int) - plain).sum(axis=2)
    height, width = changed.shape
    x1, y1, x2, y2 = label["box"]
    inside = changed[
        round(y1 / 1080 * height) : round(y2 / 1080 * height),
        round(x1 / 810 * width) : round(x2 / 810 * width),
    ]
    assert inside.mean() > 1.5 * changed.mean()
    assert library.get("/v1/images/bus/explain?label=nsfw").status_code == 200
    unknown = library.get("/v1/images/bus/explain?label=unicorn")
    assert unknown.status_code == 422
    assert "nsfw" in unknown.json()["labels"]


def test_browsers_ask_by_tag_and_get_nothing_twice(library: Any) -> None:
    first = library.get("/v1/images/zidane/picture")
    tag = first.headers["etag"]
    again = library.get("/v1/images/zidane/picture", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert first.headers["cache-control"] == "private, no-cache"
    other = library.get("/v1/images/zidane/picture?size=64", headers={"If-None-Match": tag})
    assert other.status_code == 200


@pytest.mark.parametrize(
    ("image", "status", "kind"),
    [
        ("changed", 410, "picture-changed"),
        ("gone", 404, "picture-not-there"),
        ("broken", 404, "unknown-image"),
        ("nobody", 404, "unknown-image"),
        ("wall-0-0000", 410, "picture-gone"),
    ],
)
@pytest.mark.parametrize("path", ["picture", "explain"])
def test_a_picture_that_cannot_be_had_is_a_problem(
    library: Any, image: str, status: int, kind: str, path: str
) -> None:
    answer = library.get(f"/v1/images/{image}/{path}")
    assert answer.status_code == status, answer.text
    assert answer.json()["type"] == f"urn:imagewire:problem:{kind}"
    assert str(library.photos) not in answer.text or kind == "picture-not-there"
