"""Promises of the service-time model: it learns launch and frame cost, follows, and shrugs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.service_time import ServiceTime


def test_nothing_is_predicted_before_the_first_batch() -> None:
    assert ServiceTime().predict(16) == 0.0


def test_one_batch_size_is_scaled_in_proportion() -> None:
    model = ServiceTime()
    for _ in range(5):
        model.observe(8, 0.4)
    assert model.predict(8) == pytest.approx(0.4)
    assert model.predict(16) == pytest.approx(0.8)


def test_launch_cost_and_frame_cost_are_told_apart() -> None:
    model = ServiceTime()
    for size in (1, 16, 4, 9, 2):
        model.observe(size, 0.010 + 0.005 * size)
    assert model.predict(1) == pytest.approx(0.015)
    assert model.predict(32) == pytest.approx(0.170)


def test_a_device_that_slows_down_is_followed() -> None:
    model = ServiceTime()
    for slowness in (1.0, 2.0):
        for _ in range(40):
            for size in (4, 16):
                model.observe(size, slowness * (0.010 + 0.005 * size))
    assert model.predict(16) == pytest.approx(0.180, rel=0.05)


def test_one_outlier_moves_it_little() -> None:
    model = ServiceTime()
    for _ in range(20):
        for size in (4, 16):
            model.observe(size, 0.010 + 0.005 * size)
    before = model.predict(16)
    model.observe(16, 60.0)
    assert model.predict(16) < 1.5 * before


def test_a_slow_first_batch_is_soon_forgotten() -> None:
    model = ServiceTime()
    model.observe(1, 8.0)  # compilation
    for _ in range(150):
        for size in (1, 16):
            model.observe(size, 0.010 + 0.005 * size)
    assert model.predict(16) == pytest.approx(0.090, rel=0.1)


@pytest.mark.parametrize("memory", [0.0, 1.0, -1.0, 2.0])
def test_a_memory_that_forgets_nothing_or_all_is_refused(memory: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        ServiceTime(memory)


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
    assert model.predict(size) <= (longest + 1e-6) * (size + 2)
