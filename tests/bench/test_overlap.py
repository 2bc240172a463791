"""Stages overlap in a real run: decoding, the policy and the sinks work beside the device."""

from __future__ import annotations

import pytest

from bench.overlap import overlapped, traced_run


def test_shares_of_overlap_are_reckoned() -> None:
    device = [(0.0, 1.0, 4), (2.0, 3.0, 4)]
    assert overlapped([(0.5, 1.5, 4)], device) == 0.5
    assert overlapped([(0.0, 3.0, 4)], device) == 2 / 3
    assert overlapped([], device) == 0.0


@pytest.mark.smoke
async def test_the_next_batches_are_decoded_and_the_last_written_while_the_device_works() -> None:
    trace, _, _ = await traced_run(24, device="cpu", max_batch=4)
    assert sum(frames for _, _, frames in trace.intervals["device"]) == 24
    for stage in ("decode", "sink"):
        assert overlapped(trace.intervals[stage], trace.intervals["device"]) > 0.3
