"""Stores as they are after a long time: rows and points that nobody will read in this run.

Going through Kafka would take a quarter of an hour for a million, so they are put where the sinks
would have put them: rows by the product's own schema and an `INSERT … SELECT`, points by the
product's own collections, with the same payload and the same indexes.

    python -m bench.parts.cost_over_time.fill DIRECTORY COLLECTION POINTS

fills a collection of a stack that does not run, in a process of its own: the engine holds Python's
lock.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import qdrant_edge as edge

from bench.parts.scale.simulated import DIMENSION, unit_vectors
from imagewire.embedded.qdrant_collections import CollectionConfig, CollectionStore
from sinks.clickhouse.connection import connect
from sinks.clickhouse.schema import migrate, set_retention
from sinks.clickhouse.settings import ClickHouseSettings
from sinks.qdrant.sink import PAYLOAD_INDEXES

FEEDS = 10
_POINTS_AT_ONCE = 1000
_ROWS_AT_ONCE = 100_000

_INSERT = Template("""
INSERT INTO ${database}.images_raw
(
    image_id, event_time, feed, content_id, uri, lane, width, height, format, bytes, pdq,
    pdq_quality, `objects.label`, `objects.score`, `objects.x1`, `objects.y1`, `objects.x2`,
    `objects.y2`, scores, models, verdict, policy, metadata, extra, topic, kafka_partition,
    kafka_offset, kafka_time, ingested_at, latency_ms, version
)
SELECT
    toString(generateUUIDv4(number)),
    now64(3) - toIntervalSecond(number),
    'feed-' || toString(number % ${feeds}),
    lower(hex(SHA256(toString(number)))),
    'https://camera.example/' || toString(number) || '.jpg',
    'live', 640, 480, 'jpeg', 60000 + number % 20000,
    lower(hex(SHA256(toString(number) || 'pdq'))), 100,
    ['FACE_FEMALE', 'FEET_COVERED'], [0.9, 0.6], [4, 10], [4, 30], [20, 28], [24, 44],
    map('nsfw', 0.03), map('simulated', 'simulated@1'), 'allow', 'default@1', '{}', '{}',
    'images', number % 4, intDiv(number, 4), now64(3) - toIntervalSecond(number),
    now64(3) - toIntervalSecond(number), 100, 1
FROM numbers(${first}, ${count})
""")


def fill_rows(settings: ClickHouseSettings, rows: int) -> None:
    """Put `rows` into the table of images, one a second before now, made if it is not there."""
    client = connect(settings)
    try:
        migrate(client, settings.database)
        set_retention(client, settings.database, settings.retention_days)
        for first in range(0, rows, _ROWS_AT_ONCE):
            count = min(_ROWS_AT_ONCE, rows - first)
            client.command(
                _INSERT.substitute(
                    database=settings.database, feeds=FEEDS, first=first, count=count
                )
            )
    finally:
        client.close()


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
        "verdict": "allow",
        "labels": ["FACE_FEMALE", "FEET_COVERED"],
        "uri": f"https://camera.example/{number}.jpg",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__spec__.name}", description=fill_points.__doc__
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("collection")
    parser.add_argument("points", type=int)
    chosen = parser.parse_args(arguments)
    fill_points(chosen.directory, chosen.collection, chosen.points)
    return 0


if __name__ == "__main__":
    sys.exit(main())
