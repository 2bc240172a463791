"""The operator `faces`: boxes in pixels of the original, however the picture came."""

from __future__ import annotations

import pytest
import torch
from analysed_photos import frame_of, photo

from models.catalog import load_catalog
from models.device import Device
from operators.faces import FacesOperator
from operators.findings import ImageInfo
from operators.operator import OperatorError
from operators.registry import BUILT_IN, available_operators, build_operators

CPU = Device(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def operator() -> FacesOperator:
    made = FacesOperator({"batch": 2}, CPU, load_catalog())
    made.setup()
    return made


def test_pictures_of_many_shapes_in_one_batch_keep_their_own_faces(operator: FacesOperator) -> None:
    frames = [frame_of(photo(name)) for name in ("bus", "coffee", "astronaut", "bus")]
    operator.process(frames)
    bus, coffee, astronaut, again = (frame.findings.faces for frame in frames)
    assert [len(bus), len(coffee), len(astronaut)] == [2, 0, 1]
    assert again == bus
    (face,) = astronaut
    assert face.box == pytest.approx((180, 58, 271, 176), abs=6)
    assert face.score > 0.8
    assert all(frame.findings.models == {"faces": "centerface@1.5.0"} for frame in frames)


def test_a_picture_decoded_at_half_its_size_has_its_faces_where_the_original_has_them(
    operator: FacesOperator,
) -> None:
    full, small = frame_of(photo("bus")), frame_of(photo("bus")[::2, ::2].contiguous())
    height, width = photo("bus").shape[:2]
    small.findings.image = ImageInfo(width, height, "jpeg", 1)
    operator.process([full, small])
    assert len(small.findings.faces) == len(full.findings.faces) == 2
    for half, whole in zip(small.findings.faces, full.findings.faces, strict=True):
        assert half.box == pytest.approx(whole.box, abs=12)


def test_a_frame_without_a_picture_fails_alone(operator: FacesOperator) -> None:
    astronaut, empty = frame_of(photo("astronaut")), frame_of(torch.zeros(0, 0, 3))
    operator.process([empty, astronaut])
    assert empty.failure is not None and empty.failure.stage == "faces"
    assert len(astronaut.findings.faces) == 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 4000, 3), (4000, 1, 3)])
def test_a_degenerate_picture_has_no_face(
    operator: FacesOperator, shape: tuple[int, int, int]
) -> None:
    odd = frame_of(torch.zeros(shape, dtype=torch.uint8))
    operator.process([odd])
    assert not odd.failed and odd.findings.faces == []


def test_it_runs_only_where_it_is_listed() -> None:
    assert "faces" in available_operators()
    off = {name: {"enabled": False} for name in BUILT_IN}
    assert build_operators(off, CPU, load_catalog()) == []
    (faces,) = build_operators({**off, "faces": {"input_size": 960}}, CPU, load_catalog())
    assert faces.least_size() is not None
    assert faces.least_size().longer == 1920


def test_wrong_settings_are_refused_by_name() -> None:
    with pytest.raises(OperatorError, match=r"unknown key 'size'"):
        FacesOperator({"size": 640}, CPU, load_catalog())
    with pytest.raises(OperatorError, match="multiple of 32"):
        FacesOperator({"input_size": 650}, CPU, load_catalog())
