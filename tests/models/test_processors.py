"""Promises of counting processors: a container's limit counts, and nonsense does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from models.processors import available_processors

BOUND = len(os.sched_getaffinity(0))


def test_without_a_limit_it_is_what_the_process_is_bound_to(tmp_path: Path) -> None:
    assert available_processors(tmp_path) == BOUND
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert available_processors(tmp_path) == BOUND


@pytest.mark.parametrize(("limit", "processors"), [("50000", 1), ("100000", 1), ("150000", 2)])
def test_a_quota_counts_in_whole_processors_and_one_at_least(
    limit: str, processors: int, tmp_path: Path
) -> None:
    (tmp_path / "cpu.max").write_text(f"{limit} 100000\n")
    assert available_processors(tmp_path) == min(processors, BOUND)


def test_the_quota_of_the_first_version_counts_as_well(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert available_processors(tmp_path) == 1
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert available_processors(tmp_path) == BOUND


@pytest.mark.parametrize("nonsense", ["", "much", "1 0", "-5 100000", "1 2 3"])
def test_what_cannot_be_read_is_no_limit(nonsense: str, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(nonsense)
    assert available_processors(tmp_path) == BOUND
