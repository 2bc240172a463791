"""Lets the tests here import their stage, and gives each a broker with topics of its own."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Any

import pytest
from shared_broker import SharedBroker

sys.path.append(str(Path(__file__).parent))


@pytest.fixture
def kafka(tansu_broker: SharedBroker) -> dict[str, Any]:
    """Settings of a broker, with topics that no other test uses."""
    token = secrets.token_hex(5)
    names = ("images", "bulk", "findings", "verdicts", "review", "failed")
    return {
        "bootstrap_servers": tansu_broker.address,
        "topics": {name: f"{name}-{token}" for name in names},
        "partitions": 2,
    }
