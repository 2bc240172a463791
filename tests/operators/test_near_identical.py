"""Promises of skipping: a frame borrows only from one that was analysed, and says so."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from models.catalog import Catalog
from models.device import Device
from operators.chain import OperatorChain
from operators.findings import Embedding, ImageInfo, TextLine
from operators.fingerprint import FingerprintOperator
from operators.frame import Frame, Origin
from operators.near_identical import NearIdentical
from operators.operator import Operator
from operators.policy import Policy

CPU = Device(torch.device("cpu"), torch.float32)
CATALOG = Catalog([])
QUAD = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
_offsets = itertools.count()


class Reader(Operator):
    """Stands for the operator `text`: writes down which images it read, and fails some."""

    name: ClassVar[str] = "text"

    def __init__(self) -> None:
        super().__init__({}, CPU, CATALOG)
        self.read: list[str] = []
        self.poison: set[str] = set()

    def process(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self.read.append(frame.image_id)
            if frame.image_id in self.poison:
                frame.fail(self.name, "unreadable", "It cannot be read.")
            frame.findings.texts = [TextLine(f"read in {frame.image_id}", 0.9, QUAD)]
            frame.findings.embedding = Embedding("m@1", [1.0])
            frame.findings.scores = {"score": 0.5}

    def model_versions(self) -> dict[str, str]:
        return {self.name: "reader@1"}


class Objects(Reader):
    """Stands for an operator that every frame needs."""

    name = "objects"

    def process(self, frames: Sequence[Frame]) -> None:
        self.read += [frame.image_id for frame in frames]


def noisy(picture: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 3, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def frame(name: str, picture: np.ndarray, feed: str = "camera") -> Frame:
    height, width = picture.shape[:2]
    one = Frame(name, feed, 0, Origin("images", 0, next(_offsets), 0))
    one.pixels = torch.from_numpy(np.ascontiguousarray(picture))
    one.findings.image = ImageInfo(width, height, "jpeg", 1)
    return one


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def objects() -> Objects:
    return Objects()


@pytest.fixture
def chain(reader: Reader, objects: Objects) -> OperatorChain:
    fingerprint = FingerprintOperator({}, CPU, CATALOG)
    built = OperatorChain(
        [fingerprint, objects, reader], Policy.load(None), near_identical=NearIdentical(20, 5)
    )
    built.setup()
    return built


STREET, CUP = data.astronaut(), data.coffee()


def test_a_frame_that_looks_the_same_takes_over_and_says_from_which_image(
    chain: OperatorChain, reader: Reader, objects: Objects
) -> None:
    first, second = frame("first", STREET), frame("second", noisy(STREET, 1))
    chain.process([first])
    chain.process([second])
    assert reader.read == ["first"]
    assert objects.read == ["first", "second"]
    assert second.findings.texts == first.findings.texts
    assert second.findings.embedding == first.findings.embedding
    assert second.findings.scores == first.findings.scores
    reused = second.findings.extra["reused"]
    assert reused["image_id"] == "first"
    assert reused["operators"] == ["text"]
    assert 0 <= reused["pdq_distance"] <= 20
    assert "reused" not in first.findings.extra
    assert second.findings.models == first.findings.models
    assert second.findings.verdict is not None
    assert second.pixels is None


def test_within_a_batch_the_first_is_analysed_and_the_rest_follow(
    chain: OperatorChain, reader: Reader
) -> None:
    batch = [frame(str(n), noisy(STREET, n)) for n in range(4)] + [frame("cup", CUP)]
    chain.process(batch)
    assert reader.read == ["0", "cup"]
    assert all(one.findings.texts[0].text == "read in 0" for one in batch[:4])


def test_other_feeds_sizes_and_pictures_are_analysed(chain: OperatorChain, reader: Reader) -> None:
    small = cv2.resize(STREET, (256, 256))
    chain.process([frame("first", STREET)])
    chain.process([frame("feed", STREET, feed="another"), frame("cup", CUP), frame("small", small)])
    assert reader.read == ["first", "feed", "cup", "small"]


def test_after_so_many_in_a_row_one_is_analysed_again(chain: OperatorChain, reader: Reader) -> None:
    for number in range(14):
        chain.process([frame(str(number), noisy(STREET, number))])
    assert reader.read == ["0", "6", "12"]


def test_a_slow_pan_does_not_drift_away(chain: OperatorChain, reader: Reader) -> None:
    """Each step is near the one before; the hundredth shows another place."""
    wide = np.hstack([STREET, cv2.resize(CUP, (900, 512))])
    last = ""
    for step in range(60):
        one = frame(str(step), wide[:, step * 8 : step * 8 + 512])
        chain.process([one])
        source = int(one.findings.texts[0].text.removeprefix("read in "))
        assert step - source <= 5
        last = one.findings.texts[0].text
    assert last != "read in 0"


def test_flat_pictures_whose_hash_says_nothing_are_all_analysed(
    chain: OperatorChain, reader: Reader
) -> None:
    flat = np.full((128, 128, 3), 90, np.uint8)
    chain.process([frame("a", flat), frame("b", flat)])
    assert reader.read == ["a", "b"]


def test_those_who_followed_one_that_failed_are_analysed_themselves(
    chain: OperatorChain, reader: Reader
) -> None:
    reader.poison.add("0")
    batch = [frame(str(n), noisy(STREET, n)) for n in range(3)]
    chain.process(batch)
    assert [one.failed for one in batch] == [True, False, False]
    assert reader.read == ["0", "1", "2"]
    assert batch[2].findings.texts[0].text == "read in 2"
    assert "reused" not in batch[2].findings.extra
    later = frame("later", noisy(STREET, 9))
    chain.process([later])
    assert later.findings.texts[0].text == "read in later"


def test_nothing_is_skipped_unless_asked_for(reader: Reader) -> None:
    chain = OperatorChain([FingerprintOperator({}, CPU, CATALOG), reader], Policy.load(None))
    chain.setup()
    chain.process([frame("a", STREET), frame("b", STREET)])
    assert reader.read == ["a", "b"]
