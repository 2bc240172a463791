"""Rows as they are after a long time, which nobody will read in this run.

    python -m bench.parts.cost_over_time.rows DIRECTORY ROWS

Going through Kafka would take a quarter of an hour for a million, so they are put where the sink
would have put them: by the product's own schema, and an `INSERT … SELECT`. It is a process of its
own since a process can open the engine on one directory only.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from string import Template

from sinks.clickhouse.connection import connect
from sinks.clickhouse.schema import migrate, set_retention
from sinks.clickhouse.settings import ClickHouseSettings

FEEDS = 10
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


def fill_rows(directory: Path, rows: int) -> None:
    """Put `rows` into the table of images in `directory`, which nobody uses; one a second before
    now."""
    settings = ClickHouseSettings(interface="chdb", path=directory)
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


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=fill_rows.__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("rows", type=int)
    chosen = parser.parse_args(arguments)
    fill_rows(chosen.directory, chosen.rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
