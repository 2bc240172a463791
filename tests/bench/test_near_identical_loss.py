"""The measurement of what skipping loses: a still camera skips, and a sign that comes is a loss."""

from __future__ import annotations

import numpy as np
import torch

from bench.near_identical import KINDS, SIZE, load, loss, sequence
from operators.findings import Embedding, Fingerprint, ImageInfo, TextLine
from operators.fingerprint import pdq
from operators.frame import Frame, Origin

QUAD = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


def frames_of(kind: str) -> list[Frame]:
    """Fingerprinted frames whose other findings are known by construction."""
    frames = []
    for number, picture in enumerate(sequence(load(1)[0], kind, 6, seed=1)):
        assert picture.size == SIZE
        frame = Frame(str(number), "camera", 0, Origin("images", 0, number, 0))
        digest, quality = pdq(torch.from_numpy(np.array(picture)))
        frame.findings.fingerprint = Fingerprint("", digest, quality)
        frame.findings.image = ImageInfo(*SIZE, "jpeg", 0)
        frame.findings.embedding = Embedding("m@1", [1.0, 0.0])
        frames.append(frame)
    return frames


def test_a_still_camera_is_skipped_and_loses_nothing() -> None:
    cost = loss(frames_of("noise"), 31)
    assert cost.skipped >= 0.6
    assert cost.least_cosine == 1.0
    assert cost.characters == 0.0


def test_text_that_a_skipped_frame_had_is_counted_as_lost() -> None:
    frames = frames_of("noise")
    for frame in frames[3:]:
        frame.findings.texts = [TextLine("CLOSED", 0.9, QUAD)]
    assert loss(frames, 31).characters == 1.0


def test_every_kind_renders_frames_that_differ() -> None:
    for kind in KINDS:
        pictures = [np.asarray(one) for one in sequence(load(1)[0], kind, 2, seed=2)]
        assert (pictures[0] != pictures[1]).any()
