"""Points as they are after a long time, which nobody will search in this run.

    python -m bench.parts.cost_over_time.points DIRECTORY COLLECTION POINTS

fills a collection of a stack that does not run, by the product's own collections, with the payload
and the indexes that the sink makes. It is a process of its own, as the engine holds Python's lock.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from bench.parts.cost_over_time.rows import FEEDS
from bench.parts.scale.simulated import DIMENSION, unit_vectors
from imagewire.embedded.qdrant_collections import CollectionConfig, CollectionStore
from sinks.qdrant.sink import PAYLOAD_INDEXES

_POINTS_AT_ONCE = 1000


def fill_points(directory: Path, collection: str, points: int) -> None:
    """Put `points` random unit vectors into `collection` below `directory`, which nobody uses."""
    directory.mkdir(parents=True, exist_ok=True)
    store = CollectionStore(directory)
    try:
        store.create(collection, CollectionConfig(DIMENSION, "Cosine"))
        opened = store.find(collection)
        for field, kind in PAYLOAD_INDEXES.items():
            schema = getattr(edge.PayloadSchemaType, kind.value.capitalize())
            opened.write(edge.UpdateOperation.create_field_index(field, schema), wait=False)
        random = np.random.default_rng(7)
        now = datetime.now(UTC)
        for first in range(0, points, _POINTS_AT_ONCE):
            vectors = unit_vectors(random, min(_POINTS_AT_ONCE, points - first), DIMENSION)
            block = [
                edge.Point(str(uuid.uuid4()), vector, _payload(number, now))
                for number, vector in zip(itertools.count(first), vectors.tolist(), strict=False)
            ]
            opened.write(edge.UpdateOperation.upsert_points(block), wait=False)
    finally:
        store.close()


def _payload(number: int, now: datetime) -> dict[str, Any]:
    return {
        "image_id": f"stored-{number:09d}",
        "content_id": f"{number:064x}",
        "feed": f"feed-{number % FEEDS}",
        "event_time": (now - timedelta(seconds=number)).isoformat(timespec="milliseconds"),
        "stored_at": now.isoformat(timespec="milliseconds"),
        "verdict": "allow",
        "labels": ["FACE_FEMALE", "FEET_COVERED"],
        "uri": f"https://camera.example/{number}.jpg",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=fill_points.__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("collection")
    parser.add_argument("points", type=int)
    chosen = parser.parse_args(arguments)
    fill_points(chosen.directory, chosen.collection, chosen.points)
    return 0


if __name__ == "__main__":
    sys.exit(main())
