"""A profile says which library time goes to, and which of our functions asked for it."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from bench.sampling_profile import by_own_function, by_package, package_of

ROOT = Path(__file__).parents[2]
LIBRARY = Path(msgspec.__file__)
OURS = f"write ({ROOT}/sinks/kafka/sink.py:12)"
THEIRS = f"encode ({LIBRARY}:3)"
LOOP = f"run ({threading.__file__}:9)"


@pytest.mark.parametrize(
    ("frame", "package"),
    [(OURS, "sinks"), (THEIRS, "msgspec"), (LOOP, "Python"), ("<module> (<string>)", "Python")],
)
def test_a_function_belongs_to_the_package_of_its_file(frame: str, package: str) -> None:
    assert package_of(frame) == package


def test_what_our_functions_call_counts_for_them() -> None:
    stacks = Counter({f"{LOOP};{OURS};{THEIRS}": 3, f"{LOOP};{THEIRS}": 1})

    assert by_package(stacks) == {"msgspec": 1.0}
    assert by_own_function(stacks, 9) == {
        "sinks.kafka.sink: write": 0.75,
        "msgspec by itself": 0.25,
    }
