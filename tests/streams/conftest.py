"""What the tests of the stream share: waits that are short, and the fakes of `faulty_parts`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import stamina

sys.path.append(str(Path(__file__).parent))


@pytest.fixture
def no_backoff() -> Iterator[None]:
    """Retries follow each other at once, as many as it takes."""
    with stamina.set_testing(True, attempts=1_000_000):
        yield
