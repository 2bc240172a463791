"""Promises of the service-time model: it learns every batch size, follows, and shrugs."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.service_time import ServiceTime, ServiceTimes


def seconds_of(size: int, slowness: float = 1.0) -> float:
    return slowness * (0.010 + 0.005 * size)


def learned(*sizes: int, times: int = 10, slowness: float = 1.0) -> ServiceTime:
    model = ServiceTime()
    for _ in range(times):
        for size in sizes:
            model.observe(size, seconds_of(size, slowness))
    return model


def test_nothing_is_predicted_before_the_first_batch() -> None:
    assert ServiceTime().predict(16) == 0.0
    assert ServiceTimes().predict(16) == 0.0


def test_one_batch_size_is_scaled_in_proportion() -> None:
    model = ServiceTime()
    for _ in range(5):
        model.observe(8, 0.4)
    assert model.predict(8) == pytest.approx(0.4)
    assert model.predict(16) == pytest.approx(0.8)
    assert model.predict(4) == pytest.approx(0.2)


def test_launch_cost_and_frame_cost_are_told_apart() -> None:
    model = learned(4, 16, times=1)
    assert model.predict(1) == pytest.approx(0.015)
    assert model.predict(8) == pytest.approx(0.050)
    assert model.predict(32) == pytest.approx(0.170)


def test_a_step_between_sizes_is_learned_as_a_step() -> None:
    """A network with fixed shapes computes 8 places for 5 frames."""
    model = ServiceTime()
    for _ in range(5):
        for size in range(1, 17):
            model.observe(size, 0.1 if size <= 4 else 0.2 if size <= 8 else 0.4)
    assert model.predict(4) == pytest.approx(0.1)
    assert model.predict(5) == pytest.approx(0.2)
    assert model.predict(8) == pytest.approx(0.2)
    assert model.predict(16) == pytest.approx(0.4)


@pytest.mark.parametrize("slowness", [0.5, 1.3, 2.0, 5.0])
def test_a_device_that_changes_its_pace_is_followed_at_every_size(slowness: float) -> None:
    model = learned(1, 4, 16)
    for _ in range(6):
        model.observe(4, seconds_of(4, slowness))
    assert model.predict(4) == pytest.approx(seconds_of(4, slowness), rel=0.05)
    # 16 has not come again since, and 1 neither.
    assert model.predict(16) == pytest.approx(seconds_of(16, slowness), rel=0.05)
    assert model.predict(1) == pytest.approx(seconds_of(1, slowness), rel=0.05)


def test_a_creeping_slowdown_is_followed() -> None:
    model = learned(4, 16)
    slowness = 1.0
    for _ in range(200):
        slowness *= 1.01
        for size in (4, 16):
            model.observe(size, seconds_of(size, slowness))
    assert model.predict(16) == pytest.approx(seconds_of(16, slowness), rel=0.1)


def test_an_operator_that_slows_down_at_one_size_only_does_not_slow_the_others() -> None:
    model = learned(1, 16)
    for _ in range(20):
        model.observe(1, seconds_of(1))
        model.observe(16, 2 * seconds_of(16))
    assert model.predict(1) == pytest.approx(seconds_of(1), rel=0.1)
    assert model.predict(16) == pytest.approx(2 * seconds_of(16), rel=0.1)


def test_a_stall_changes_nothing() -> None:
    model = learned(4, 16)
    before = model.predict(1), model.predict(4), model.predict(16)
    model.observe(16, 60.0)
    model.observe(4, 60.0)
    assert (model.predict(1), model.predict(4), model.predict(16)) == pytest.approx(before)


def test_a_slow_first_batch_is_forgotten_with_the_second() -> None:
    model = ServiceTime()
    model.observe(1, 8.0)  # compilation
    model.observe(1, 0.015)
    assert model.predict(1) == pytest.approx(0.015)


def test_noise_stays_within_itself() -> None:
    dice = random.Random(5)
    model = ServiceTime()
    for _ in range(300):
        size = dice.randint(1, 16)
        stall = 20.0 if dice.random() < 0.05 else 1.0
        model.observe(size, stall * seconds_of(size) * dice.uniform(0.8, 1.2))
    for size in (1, 4, 8, 16):
        assert model.predict(size) == pytest.approx(seconds_of(size), rel=0.25)


def test_operators_add_up_and_each_is_told_by_itself() -> None:
    times = ServiceTimes()
    for _ in range(3):
        times.observe("objects", 8, 0.08)
        times.observe("text", 8, 0.8)
    assert times.predict(8) == pytest.approx(0.88)
    assert times.by_stage(8) == pytest.approx({"objects": 0.08, "text": 0.8})


@given(
    st.lists(st.tuples(st.integers(1, 1024), st.floats(0, 600, allow_nan=False)), max_size=60),
    st.integers(1, 1024),
)
def test_a_prediction_is_never_negative_and_grows_with_the_batch(
    batches: list[tuple[int, float]], size: int
) -> None:
    model = ServiceTime()
    for batch_size, seconds in batches:
        model.observe(batch_size, seconds)
    longest = max((seconds for _, seconds in batches), default=0.0)
    assert 0.0 <= model.predict(size) <= model.predict(size + 1)
    # A pace of 16 at most, and in proportion beyond what was seen.
    assert model.predict(size) <= 16 * (longest + 1e-6) * (size + 2)


@given(
    st.lists(st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16]), min_size=40, max_size=80),
    st.integers(0, 35),
    st.floats(2.0, 1000.0),
)
def test_one_outlier_anywhere_does_not_spoil_what_follows(
    sizes: list[int], stall_at: int, stall: float
) -> None:
    clean, stalled = ServiceTime(), ServiceTime()
    for number, size in enumerate([1, 4, 16] * 4 + sizes):
        clean.observe(size, seconds_of(size))
        stalled.observe(size, seconds_of(size, stall if number == 12 + stall_at else 1.0))
    for size in (1, 4, 16):
        assert stalled.predict(size) == pytest.approx(clean.predict(size), rel=0.05)
