"""One strange picture costs its neighbours nothing, and every living frame gets a verdict."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from models.catalog import Catalog
from models.device import Device
from operators.chain import DeviceLostError, OperatorChain
from operators.frame import Frame, Origin
from operators.operator import Operator, OperatorError
from operators.policy import Policy

CPU = Device(torch.device("cpu"), torch.float32)
CATALOG = Catalog([])


class Width(Operator):
    """Writes down each picture's width; `trouble` may raise for a batch."""

    name: ClassVar[str] = "width"

    def __init__(self, trouble: Callable[[Sequence[Frame]], None] = lambda frames: None) -> None:
        super().__init__({}, CPU, CATALOG)
        self.trouble = trouble
        self.batches: list[int] = []
        self.closed = 0

    def process(self, frames: Sequence[Frame]) -> None:
        self.batches.append(len(frames))
        self.trouble(frames)
        for frame in frames:
            assert frame.pixels is not None
            frame.findings.extra[self.name] = frame.pixels.shape[1]

    def model_versions(self) -> dict[str, str]:
        return {self.name: "ruler@1"}

    def close(self) -> None:
        self.closed += 1


class Second(Width):
    name = "second"


def frames_of(count: int) -> list[Frame]:
    return [
        Frame(
            f"image-{index}",
            "feed",
            0,
            Origin("images", 0, index, 0),
            pixels=torch.zeros((8, 10 + index, 3), dtype=torch.uint8),
        )
        for index in range(count)
    ]


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy.load(None)


def chain_of(policy: Policy, *operators: Operator, **options: Any) -> OperatorChain:
    chain = OperatorChain(operators, policy, **options)
    chain.setup()
    return chain


def raise_for(error: Exception, *guilty: str) -> Callable[[Sequence[Frame]], None]:
    def trouble(frames: Sequence[Frame]) -> None:
        if any(frame.image_id in guilty for frame in frames):
            raise error

    return trouble


def test_every_frame_gets_findings_model_versions_and_a_verdict(policy: Policy) -> None:
    frames = frames_of(3)
    chain = chain_of(policy, Width(), Second())
    chain.process(frames)
    for index, frame in enumerate(frames):
        assert frame.findings.extra == {"width": 10 + index, "second": 10 + index}
        assert frame.findings.models == {"width": "ruler@1", "second": "ruler@1"}
        assert frame.findings.verdict is not None
        assert frame.findings.verdict.action == "allow"
        assert frame.findings.verdict.policy == policy.version
        assert frame.pixels is None, "pixels are released after the last operator"
    assert chain.model_versions() == {"width": "ruler@1", "second": "ruler@1"}


@pytest.mark.parametrize("guilty", [["image-0"], ["image-5"], ["image-2", "image-3"]])
def test_only_the_guilty_frame_fails(policy: Policy, guilty: list[str]) -> None:
    frames = frames_of(6)
    second = Second()
    chain_of(policy, Width(raise_for(ValueError("odd shape"), *guilty)), second).process(frames)
    assert [frame.image_id for frame in frames if frame.failed] == guilty
    for frame in frames:
        if frame.failure:
            assert (frame.failure.stage, frame.failure.reason) == ("width", "operator-error")
            assert "ValueError: odd shape" in frame.failure.detail
            assert frame.findings.verdict is None
        else:
            assert frame.findings.extra["width"] == 10 + int(frame.image_id[-1])
            assert frame.findings.verdict is not None
    assert second.batches == [6 - len(guilty)], "the next operator gets the living in one batch"


def test_a_guilty_frame_is_found_by_halving_not_one_by_one(policy: Policy) -> None:
    width = Width(raise_for(RuntimeError(), "image-37"))
    chain_of(policy, width).process(frames_of(64))
    assert len(width.batches) == 1 + 2 * 6


def test_a_batch_too_large_for_memory_is_split_until_it_fits(policy: Policy) -> None:
    def trouble(frames: Sequence[Frame]) -> None:
        if len(frames) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    frames = frames_of(8)
    width = Width(trouble)
    chain_of(policy, width).process(frames)
    assert not any(frame.failed for frame in frames)
    assert width.batches == [8, 4, 2, 2, 4, 2, 2]


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("full"), MemoryError()])
def test_a_frame_too_large_even_alone_says_so(policy: Policy, error: Exception) -> None:
    frames = frames_of(2)
    chain_of(policy, Width(raise_for(error, "image-1"))).process(frames)
    assert frames[1].failure is not None
    assert frames[1].failure.reason == "out-of-memory"
    assert "(8, 11, 3)" in frames[1].failure.detail
    assert not frames[0].failed


def test_a_lost_device_stops_the_chain_and_blames_no_frame(policy: Policy) -> None:
    frames = frames_of(4)
    lost = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(DeviceLostError, match="illegal memory access"):
        chain_of(policy, Width(raise_for(lost, "image-2"))).process(frames)
    assert not any(frame.failed for frame in frames)


def test_a_frame_that_had_failed_before_is_left_alone(policy: Policy) -> None:
    frames = frames_of(3)
    frames[1].fail("decode", "not-an-image", "no picture")
    width = Width()
    chain_of(policy, width).process(frames)
    assert width.batches == [2]
    assert frames[1].failure is not None
    assert frames[1].failure.stage == "decode"
    assert frames[1].findings.extra == {}
    assert frames[1].findings.verdict is None


def test_a_frame_that_an_operator_marks_itself_keeps_its_reason(policy: Policy) -> None:
    def trouble(frames: Sequence[Frame]) -> None:
        frames[0].fail("width", "too-narrow", "it has ten columns")
        raise ValueError("and then it fell over")

    frames = frames_of(1)
    chain_of(policy, Width(trouble)).process(frames)
    assert frames[0].failure is not None
    assert frames[0].failure.reason == "too-narrow"


def test_a_policy_that_breaks_fails_the_frame_at_the_policy(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(frame: Frame) -> None:
        raise RuntimeError("no rules today")

    broken_policy = Policy(policy.rules, policy.version)
    monkeypatch.setattr(broken_policy, "evaluate", broken)
    frames = frames_of(1)
    chain_of(broken_policy, Width()).process(frames)
    assert frames[0].failure is not None
    assert (frames[0].failure.stage, frames[0].failure.reason) == ("policy", "policy-error")


def test_each_stage_is_observed_with_its_batch_size_and_time(policy: Policy) -> None:
    seen: list[tuple[str, int, float]] = []
    chain = chain_of(
        policy,
        Width(raise_for(ValueError(), "image-0")),
        Second(),
        observe=lambda stage, size, seconds: seen.append((stage, size, seconds)),
    )
    chain.process(frames_of(3))
    assert [(stage, size) for stage, size, _ in seen] == [
        ("width", 3),
        ("second", 2),
        ("policy", 2),
    ]
    assert all(seconds > 0 for _, _, seconds in seen)


def test_an_empty_batch_and_a_batch_of_failures_do_nothing(policy: Policy) -> None:
    width = Width()
    chain = chain_of(policy, width)
    chain.process([])
    frames = frames_of(1)
    frames[0].fail("fetch", "http-status", "404")
    chain.process(frames)
    assert width.batches == []


def test_an_operator_that_cannot_start_releases_those_before_it(policy: Policy) -> None:
    class Unable(Width):
        name = "unable"

        def setup(self) -> None:
            raise OperatorError("operator 'unable': no weights")

    first = Width()
    with pytest.raises(OperatorError, match="no weights"):
        OperatorChain([first, Unable()], policy).setup()
    assert first.closed == 1


def test_an_operator_that_cannot_close_does_not_keep_the_others_open(policy: Policy) -> None:
    class Stuck(Width):
        name = "stuck"

        def close(self) -> None:
            raise OSError("busy")

    first = Width()
    chain_of(policy, first, Stuck()).close()
    assert first.closed == 1


def test_the_documented_example_operator_measures_a_real_photo(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[2] / "docs" / "examples" / "brightness-operator"
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.delitem(sys.modules, "imagewire_brightness", raising=False)
    import ultralytics.utils
    from imagewire_brightness import BrightnessOperator  # type: ignore[import-not-found]

    ultralytics = find_spec("ultralytics")
    assert ultralytics
    assert ultralytics.origin
    with Image.open(Path(ultralytics.origin).parent / "assets" / "bus.jpg") as photo:
        sharp = np.asarray(photo.convert("RGB")).copy()
        dark = np.asarray(photo.convert("RGB").point(lambda value: value // 4)).copy()
        soft = np.asarray(photo.convert("RGB").resize((40, 54)).resize(photo.size)).copy()
    frames = frames_of(3)
    for frame, pixels in zip(frames, (sharp, dark, soft), strict=True):
        frame.pixels = torch.from_numpy(pixels)
    chain_of(policy, BrightnessOperator({"side": 128}, CPU, CATALOG)).process(frames)
    seen = [frame.findings.extra["brightness"] for frame in frames]
    assert 0.2 < seen[0]["luminance"] < 0.8
    assert seen[1]["luminance"] == pytest.approx(seen[0]["luminance"] / 4, rel=0.05)
    assert seen[2]["sharpness"] < seen[0]["sharpness"] / 2
    with pytest.raises(OperatorError, match="side"):
        BrightnessOperator({"size": 3}, CPU, CATALOG)
