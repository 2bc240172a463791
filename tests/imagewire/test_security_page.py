"""Every claim of SECURITY.md names code and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text()
DEFENCES = [
    line
    for line in PAGE.split("## What is defended")[1].split("### Dependencies")[0].splitlines()
    if line.startswith("| ") and not line.startswith("| threat")
]


@pytest.mark.parametrize("line", DEFENCES)
def test_a_defence_names_its_code_and_its_tests(line: str) -> None:
    _, _, _, code, tests, _ = (cell.strip() for cell in line.split("|"))
    paths = re.findall(r"`([^`]+)`", code)
    assert paths
    for path in paths:
        assert (ROOT / path).is_file(), path
    named = re.findall(r"`([^`:]+)::([^`]+)`", tests)
    assert named
    for path, test in named:
        assert re.search(rf"^(async )?def {test}\(", (ROOT / path).read_text(), re.M), test


def test_there_are_defences() -> None:
    assert len(DEFENCES) > 25
