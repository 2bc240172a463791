"""The part that measures throughput by what is stored already, and how it fills the stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.figures import Options
from bench.parts import cost_over_time
from bench.parts.cost_over_time.points import fill_points
from bench.parts.cost_over_time.rows import fill_rows
from bench.parts.scale.simulated import DIMENSION
from imagewire.embedded.qdrant_collections import CollectionStore
from sinks.clickhouse.connection import connect
from sinks.clickhouse.settings import ClickHouseSettings


@pytest.mark.smoke
def test_throughput_is_measured_by_what_is_stored(tmp_path: Path) -> None:
    report = cost_over_time.run(Options(1, "cpu", tmp_path, quick=True))

    figures = {figure.name: figure for figure in report.figures}
    assert figures["cost_at_1m_over_1k"].value > 0
    assert figures["cost_at_1m_over_1k"].target == 0.95
    assert all((tmp_path / plot).stat().st_size for plot in report.plots)


def test_rows_are_filled_in_as_the_sink_would_write_them(tmp_path: Path) -> None:
    fill_rows(tmp_path / "clickhouse", 1_500)

    settings = ClickHouseSettings(interface="chdb", path=tmp_path / "clickhouse")
    client = connect(settings)
    try:
        answer = client.query(
            f"SELECT count(), uniqExact(image_id), uniqExact(feed) FROM {settings.database}.images"
        )
        assert answer.result_rows == [(1_500, 1_500, 10)]
    finally:
        client.close()


def test_points_are_filled_in_with_the_payload_and_the_indexes_of_the_sink(tmp_path: Path) -> None:
    fill_points(tmp_path / "qdrant", "images_simulated_1", 1_200)

    store = CollectionStore(tmp_path / "qdrant")
    try:
        collection = store.find("images_simulated_1")
        assert collection.config.size == DIMENSION
        info = collection.shard.info()
        assert info.points_count == 1_200
        indexed = {"feed", "event_time", "stored_at", "verdict", "labels"}
        assert set(info.payload_schema) == indexed
    finally:
        store.close()
