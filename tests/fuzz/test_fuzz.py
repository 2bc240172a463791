"""A short form of `make fuzz`: no bytes whatever break what is promised of strangers' bytes."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from fuzz import fuzz
from targets import CORPUS, TARGETS

INPUTS = {"records": 3_000, "references": 1_500, "screening": 3_000, "decoding": 2_000}


@pytest.mark.parametrize("target", TARGETS)
def test_bytes_from_strangers_never_break_a_promise(target: str) -> None:
    # A new seed each time would find more, and fail where nobody changed anything.
    complaints, _, line = fuzz(target, INPUTS[target], seed=7)
    assert not complaints, line


def test_what_fuzzing_found_before_stays_mended() -> None:
    found = sorted((CORPUS / "found").iterdir())
    assert found
    for path in found:
        target = TARGETS[path.name.partition("-")[0]]()
        try:
            assert target.run([path.read_bytes()]) == [], path.name
        finally:
            target.close()


def test_the_same_seed_makes_the_same_inputs() -> None:
    from mutation import Mutator

    seeds = [path.read_bytes() for path in sorted((CORPUS / "images").iterdir())]
    first, second = (Mutator(seeds, random.Random("1")) for _ in range(2))
    assert [first.next() for _ in range(50)] == [second.next() for _ in range(50)]
